// Package ci checks the examples for CI systems: each file against the schema or with the checker
// of its system, and its shell lines by running them with the program and a registry on loopback.
//
// It imports schematest and lab. It starts the program, shells, and the go command, which uses the
// network to fetch actionlint, kubeconform, and the schemas of Kubernetes, Tekton and Argo as Go
// modules. It writes to temporary directories. The schema of GitLab is in testdata.
//
// To run it: go test ./test/ci, as root. Without the go command or the modules, the checks that
// need them are skipped. With LAYERBUILD_PODSECURITY=1 TestPodSecurity compiles and runs the code
// that evaluates pods in the API server of Kubernetes. With LAYERBUILD_NPM=1 TestGitLabLocal
// installs gitlab-ci-local with npm and has it run the jobs; it needs rsync too. It is not a part
// of make test, because Debian's npm depends on 388 packages of 236 MB, whose installation took six
// minutes on two busy cores. make release-test runs both.
package ci
