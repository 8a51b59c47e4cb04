package cluster

import (
	"strconv"
	"strings"
)

// The templates below have names in angle brackets, which fill replaces. What is put in their place
// is quoted, or consists of digits and small letters.

const jobTemplate = `---
apiVersion: batch/v1
kind: Job
metadata:
  name: "layerbuild-<id>-<name>"
  labels: {layerbuild-plan: "<id>", layerbuild-wave: "<wave>"}
spec:
  backoffLimit: 2
  ttlSecondsAfterFinished: 86400
  template:
    metadata:
      labels: {layerbuild-plan: "<id>", layerbuild-wave: "<wave>"}
    spec:
      restartPolicy: Never
      automountServiceAccountToken: false
      nodeSelector: {kubernetes.io/os: linux, kubernetes.io/arch: <arch>}
      containers:
        - name: layerbuild
          command: [layerbuild]
          args: <args>
          resources: {requests: {cpu: "1", memory: 512Mi}}
<container>      volumes:
<volumes>`

const workflowTemplate = `apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata:
  name: "layerbuild-<id>"
spec:
  entrypoint: plan
  volumes:
<volumes>  templates:
    - name: plan
      dag:
        tasks:
`

const workflowTaskTemplate = `          - name: "<name>"
            template: "<name>"
            dependencies: <needs>
`

const workflowNodeTemplate = `    - name: "<name>"
      retryStrategy: {limit: "2"}
      nodeSelector: {kubernetes.io/os: linux, kubernetes.io/arch: <arch>}
      container:
        command: [layerbuild]
        args: <args>
        resources: {requests: {cpu: "1", memory: 512Mi}}
<container>`

const taskTemplate = `apiVersion: tekton.dev/v1
kind: Task
metadata:
  name: "layerbuild-<id>"
spec:
  params:
    - {name: args, type: array}
  volumes:
<volumes>  steps:
    - name: build
      command: [layerbuild]
      args: ["$(params.args[*])"]
      computeResources: {requests: {cpu: "1", memory: 512Mi}}
<container>---
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: "layerbuild-<id>"
spec:
  pipelineSpec:
    tasks:
`

const pipelineTaskTemplate = `      - name: "<name>"
        retries: 2
        taskRef: {name: "layerbuild-<id>"}
        runAfter: <needs>
        params: [{name: args, value: <args>}]
`

const taskRunTemplate = `    - pipelineTaskName: "<name>"
      podTemplate:
        nodeSelector: {kubernetes.io/os: linux, kubernetes.io/arch: <arch>}
`

// containerTemplate has the rights that a build needs, and where it finds the credentials and the
// context. docs of the example for Kubernetes have the reasons.
const containerTemplate = `image: <image>
env:
  - {name: DOCKER_CONFIG, value: /credentials}
  - {name: LAYERBUILD_ROOT, value: /scratch/state}
  - {name: LAYERBUILD_BRACE, value: "{"}
  - {name: LAYERBUILD_DOLLAR, value: "$"}
securityContext:
  runAsUser: 0
  allowPrivilegeEscalation: true
  capabilities: {add: [SYS_ADMIN]}
  seccompProfile: {type: Unconfined}
  appArmorProfile: {type: Unconfined}
volumeMounts:
  - {name: scratch, mountPath: /scratch}
  - {name: credentials, mountPath: /credentials, readOnly: true}
`

const volumesTemplate = `- name: scratch
  emptyDir: {}
- name: credentials
  secret:
    secretName: registry-credentials
    optional: true
    items: [{key: .dockerconfigjson, path: config.json}]
`

// Kubernetes returns Jobs. A Job cannot wait for others, so their label layerbuild-wave has the
// level at which they can run.
func (p *Plan) Kubernetes() string {
	var b strings.Builder
	waves := strconv.Itoa(len(Waves(p.Nodes)) - 1)
	p.heading(&b, "The Secret registry-credentials has the credentials for registries.",
		"The Jobs of a wave wait for those of the one before:", "",
		"  for w in $(seq 0 "+waves+"); do",
		"    kubectl apply -f FILE -l layerbuild-wave=$w",
		"    kubectl wait --for=condition=complete --timeout=1h job -l layerbuild-plan="+p.ID()+
			",layerbuild-wave=$w",
		"  done", "")
	for i := range p.Nodes {
		b.WriteString(p.fill(jobTemplate, i, asArgument, 10, 8))
	}
	return b.String()
}

// Argo returns a Workflow of Argo Workflows.
func (p *Plan) Argo() string {
	var b, templates strings.Builder
	p.heading(&b, "The Secret registry-credentials has the credentials for registries.")
	b.WriteString(p.fill(workflowTemplate, 0, asWorkflowArgument, 0, 4))
	for i := range p.Nodes {
		b.WriteString(p.fill(workflowTaskTemplate, i, asWorkflowArgument, 0, 0))
		templates.WriteString(p.fill(workflowNodeTemplate, i, asWorkflowArgument, 8, 0))
	}
	return b.String() + templates.String()
}

// Tekton returns a Task of Tekton Pipelines, and a PipelineRun that runs it for each node.
func (p *Plan) Tekton() string {
	var b, specs strings.Builder
	p.heading(&b, "The Secret registry-credentials has the credentials for registries.")
	b.WriteString(p.fill(taskTemplate, 0, asPipelineArgument, 6, 4))
	for i := range p.Nodes {
		b.WriteString(p.fill(pipelineTaskTemplate, i, asPipelineArgument, 0, 0))
		specs.WriteString(p.fill(taskRunTemplate, i, asPipelineArgument, 0, 0))
	}
	return b.String() + "  taskRunSpecs:\n" + specs.String()
}

// fill returns a template for a node. quote writes an argument for the engine; container and
// volumes are the indentations of those parts.
func (p *Plan) fill(template string, node int, quote func(string) string,
	container, volumes int) string {
	n := &p.Nodes[node]
	needs := make([]string, len(n.Needs))
	for i, at := range n.Needs {
		needs[i] = p.Nodes[at].Name
	}
	args := make([]string, len(n.Args)-1)
	for i, arg := range n.Args[1:] {
		args[i] = quote(arg)
	}
	mount, volume := containerTemplate, volumesTemplate
	if p.Claim != "" {
		mount += "  - {name: source, mountPath: " + ClaimPath + ", readOnly: true}\n"
		volume += "- {name: source, persistentVolumeClaim: {claimName: " + text(p.Claim) +
			", readOnly: true}}\n"
	}
	mount = strings.ReplaceAll(mount, "<image>", text(p.Image))
	return strings.NewReplacer("<id>", p.ID(), "<name>", n.Name, "<wave>", strconv.Itoa(n.Level),
		"<arch>", text(n.architecture()), "<needs>", list(needs), "<args>", list(args),
		"<container>", indent(mount, container), "<volumes>", indent(volume, volumes),
	).Replace(template)
}

// list returns a list of texts on one line.
func list(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(text(w))
	}
	return "[" + b.String() + "]"
}

// indent returns lines with n spaces before each.
func indent(lines string, n int) string {
	space := strings.Repeat(" ", n)
	return space + strings.TrimSuffix(strings.ReplaceAll(lines, "\n", "\n"+space), space)
}
