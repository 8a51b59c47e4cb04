package main_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	mathbig "math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/registrytest"
	"github.com/layerbuild/layerbuild/internal/schematest"
	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts in testdata/script run the real program, since it starts itself again in namespaces:
// a test of its functions in this process would prove less. LAYERBUILD names an existing program to
// use.
var binary string

func TestMain(m *testing.M) {
	syscall.Umask(0o022)
	os.Exit(run(m))
}

func run(m *testing.M) int {
	binary = os.Getenv("LAYERBUILD")
	if binary != "" || slices.Contains(os.Args, "-test.fuzzworker") {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "layerbuild-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "layerbuild")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

var busybox = sync.OnceValues(imagetest.Busybox)

// TestScript runs testdata/script/*.txtar. Besides testscript's own, a script has these commands
// and variables:
//
//	layerbuild ARGS…         the program, on the script's own state directory ($STATE, which is
//	                         outside the work directory)
//	status N                 the exit status of the last layerbuild was N
//	layer IMAGE N            prints the entries of a layer, one per line; 0 is the lowest, -1 the
//	                         topmost
//	layers IMAGE N           the image has N layers
//	tree IMAGE [PATH…]       prints the image's file system, or what is at and below the paths,
//	                         the same way
//	content IMAGE PATH       prints a file of the image
//	config IMAGE [FIELD]     prints the image's config, or a field of it as JSON: .config.Env,
//	                         .history[0].created_by
//	manifest IMAGE [FIELD]   prints the image's manifest
//	digest IMAGE             prints the manifest's digest
//	statement IMAGE TYPE [FIELD]
//	                         prints the only statement about the image whose predicate has a type
//	                         with TYPE in it
//	attestations IMAGE       prints the predicates' types in their order, or none; those of an
//	                         artifact follow the word artifact
//	root IMAGE               prints the digest of the index or, without one, of the manifest
//	json FILE [FIELD]        prints a field of a JSON file; FILE may be stdout
//	sarif FILE               checks a SARIF log against the published schema; FILE may be stdout
//	keep NAME                sets the variable NAME to what the last command printed
//	registry log             prints the requests that the registry answered since the last time
//	registry auth USER PASS  makes the registry ask for credentials
//	registry separate        a repository has only the blobs that were pushed to it or mounted
//	registry fail PART N     makes the next N requests with PART in "METHOD path" fail with 503
//	registry tls [client]    serves the registry by TLS, too, as example.com through a proxy, with
//	                         a certificate of the authority ca.pem; client refuses clients without
//	                         the certificate client.pem, whose key is client.key
//
// IMAGE is an OCI layout or archive in the work directory, or a name in the state directory.
// $REGISTRY is a registry of the script's own on loopback; it has busybox (as
// docker.io/library/busybox:latest too, through CONTAINERS_REGISTRIES_CONF) and takes pushes. $HTTP
// serves the folder served/. Conditions: [root], [userns], [overlay].
func TestScript(t *testing.T) {
	base, err := busybox()
	if errors.Is(err, imagetest.ErrNoBusybox) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 && !userns() {
		t.Skip("neither root nor user namespaces")
	}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		RequireUniqueNames: true,
		Setup:              func(env *testscript.Env) error { return setup(env, base) },
		Condition:          condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"layerbuild": cmdLayerbuild, "status": cmdStatus, "layer": cmdLayer,
			"layers": cmdLayers, "tree": cmdTree,
			"content": cmdContent, "config": cmdConfig, "manifest": cmdManifest,
			"digest": cmdDigest, "json": cmdJSON, "sarif": cmdSARIF, "statement": cmdStatement,
			"attestations": cmdAttestations, "root": cmdRoot,
			"keep": cmdKeep, "registry": cmdRegistry,
		},
	})
}

// script holds the state that the commands of one script share.
type script struct {
	registry *registrytest.Registry
	state    string
	status   int
}

type scriptKey struct{}

func setup(env *testscript.Env, base *imagetest.Made) error {
	dir, err := os.MkdirTemp("", "layerbuild-script-")
	if err != nil {
		return err
	}
	env.Defer(func() { remove(env, dir) })
	s := &script{state: filepath.Join(dir, "state")}
	var stop func()
	s.registry, stop = registrytest.Start()
	env.Defer(stop)
	s.registry.Add("library/busybox", "latest", base)
	files := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(env.WorkDir, "served"))))
	env.Defer(files.Close)
	conf := filepath.Join(dir, "registries.conf")
	text := fmt.Sprintf("[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", s.registry.Host)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		return err
	}
	env.Setenv("STATE", s.state)
	env.Setenv("LAYERBUILD_CHECK_LAYERS", "1") // compare layers with file systems
	env.Setenv("HOME", home)
	env.Setenv("REGISTRY", s.registry.Host)
	env.Setenv("HTTP", files.URL)
	env.Setenv("CONTAINERS_REGISTRIES_CONF", conf)
	env.Setenv("PATH", filepath.Dir(binary)+":"+env.Getenv("PATH")+":/usr/sbin:/sbin")
	env.Values[scriptKey{}] = s
	return nil
}

// remove removes a script's directory. A mount below it is a failure: the program must not leave
// any behind.
func remove(env *testscript.Env, dir string) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(dir+"/")) {
		env.T().Fatal("a mount was left behind below", dir, err)
	}
	if os.Getuid() != 0 {
		// The user owns files of its subordinate ids only inside a user namespace.
		exec.Command("unshare", "--map-root-user", "--map-auto", "rm", "-rf",
			"--one-file-system", dir).Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		env.T().Log("clean up:", err)
	}
}

func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Getuid() == 0, nil
	case "userns":
		return userns(), nil
	case "overlay":
		fs, err := os.ReadFile("/proc/filesystems")
		return bytes.Contains(fs, []byte("\toverlay\n")), err
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

var userns = sync.OnceValue(func() bool {
	return exec.Command("unshare", "--user", "--map-root-user", "--mount", "true").Run() == nil
})

func of(ts *testscript.TestScript) *script { return ts.Value(scriptKey{}).(*script) }

func args(ts *testscript.TestScript, neg bool, all []string, low, high int) {
	if neg {
		ts.Fatalf("this command cannot be negated")
	}
	if len(all) < low || len(all) > high {
		ts.Fatalf("wrong number of arguments")
	}
}

var verbs = []string{"build", "run", "images", "history", "inspect", "tag", "rm", "pull", "push",
	"prune", "info", "analyze", "diff", "prune-image", "save", "load", "copy", "du",
	"index", "sbom", "bake", "executor", "plan"}

func cmdLayerbuild(ts *testscript.TestScript, neg bool, all []string) {
	s := of(ts)
	at := 0
	if len(all) > 0 && slices.Contains(verbs, all[0]) {
		at = 1
	}
	err := ts.Exec(binary, slices.Insert(slices.Clone(all), at, "--root="+s.state)...)
	s.status = 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		s.status = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if s.status < 0 {
		ts.Fatalf("layerbuild was killed: %v", err)
	}
	if neg != (s.status != 0) {
		ts.Fatalf("layerbuild ended with status %d", s.status)
	}
}

func cmdStatus(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 1)
	if got := strconv.Itoa(of(ts).status); got != all[0] {
		ts.Fatalf("exit status %s, want %s", got, all[0])
	}
}

func image(ts *testscript.TestScript, name string) *imagetest.Image {
	path := ts.MkAbs(name)
	if _, err := os.Stat(path); err == nil {
		name = ""
	} else {
		path = filepath.Join(of(ts).state, "oci")
	}
	img, err := imagetest.Open(path, name)
	ts.Check(err)
	return img
}

func cmdLayer(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 2, 2)
	n, err := strconv.Atoi(all[1])
	ts.Check(err)
	entries, err := image(ts, all[0]).Layer(n)
	ts.Check(err)
	fmt.Fprint(ts.Stdout(), imagetest.Lines(entries))
}

func cmdLayers(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 2, 2)
	if got := strconv.Itoa(len(image(ts, all[0]).Manifest.Layers)); got != all[1] {
		ts.Fatalf("%s layers, want %s", got, all[1])
	}
}

func cmdTree(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 100)
	entries, err := image(ts, all[0]).Tree()
	ts.Check(err)
	for _, e := range entries {
		below := func(p string) bool {
			p = strings.Trim(p, "/")
			return e.Path == p ||
				strings.HasPrefix(e.Path, p+"/")
		}
		if len(all) == 1 || slices.ContainsFunc(all[1:], below) {
			fmt.Fprintln(ts.Stdout(), e)
		}
	}
}

func cmdContent(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 2, 2)
	entries, err := image(ts, all[0]).Tree()
	ts.Check(err)
	for _, e := range entries {
		if e.Path == strings.Trim(all[1], "/") {
			ts.Stdout().Write(e.Data)
			return
		}
	}
	ts.Fatalf("%s has no %s", all[0], all[1])
}

func cmdConfig(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 2)
	printField(ts, image(ts, all[0]).Config, all[1:])
}

func cmdManifest(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 2)
	printField(ts, image(ts, all[0]).Manifest, all[1:])
}

func cmdDigest(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 1)
	fmt.Fprintln(ts.Stdout(), image(ts, all[0]).Descriptor.Digest)
}

func cmdRoot(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 1)
	fmt.Fprintln(ts.Stdout(), image(ts, all[0]).Root())
}

func cmdAttestations(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 1)
	list, err := image(ts, all[0]).Attestations()
	ts.Check(err)
	if len(list) == 0 {
		fmt.Fprintln(ts.Stdout(), "none")
	}
	for _, a := range list {
		if a.Artifact {
			fmt.Fprint(ts.Stdout(), "artifact ")
		}
		fmt.Fprintln(ts.Stdout(), a.PredicateType)
	}
}

func cmdStatement(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 2, 3)
	list, err := image(ts, all[0]).Attestations()
	ts.Check(err)
	list = slices.DeleteFunc(list, func(a imagetest.Attestation) bool {
		return !strings.Contains(a.PredicateType, all[1])
	})
	if len(list) != 1 {
		ts.Fatalf("%d statements of the type %s", len(list), all[1])
	}
	var doc any
	ts.Check(json.Unmarshal(list[0].Statement, &doc))
	printField(ts, doc, all[2:])
}

func cmdJSON(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 2)
	var doc any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(all[0])), &doc))
	printField(ts, doc, all[1:])
}

func cmdSARIF(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 1)
	schema, err := sarifSchema()
	ts.Check(err)
	ts.Check(schema.Check([]byte(ts.ReadFile(all[0]))))
}

var sarifSchema = sync.OnceValues(func() (schematest.Schema, error) {
	return schematest.Open("../../internal/sarif/testdata/sarif-2.1.0-rtm.5.json")
})

func cmdKeep(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 1)
	ts.Setenv(all[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func cmdRegistry(ts *testscript.TestScript, neg bool, all []string) {
	args(ts, neg, all, 1, 3)
	r := of(ts).registry
	switch {
	case all[0] == "log" && len(all) == 1:
		fmt.Fprintln(ts.Stdout(), strings.Join(r.Log(), "\n"))
	case all[0] == "separate" && len(all) == 1:
		r.Separate()
	case all[0] == "forget" && len(all) == 2:
		r.Forget(all[1])
	case all[0] == "auth" && len(all) == 3:
		r.Auth(all[1], all[2])
	case all[0] == "fail" && len(all) == 3:
		n, err := strconv.Atoi(all[2])
		ts.Check(err)
		r.Fail(all[1], n)
	case all[0] == "tls" && len(all) <= 2:
		serveTLS(ts, r, len(all) == 2 && all[1] == "client")
	default:
		ts.Fatalf("usage: registry log | separate | forget REPOSITORY | " +
			"auth USER PASS | fail PART N | tls [client]")
	}
}

// serveTLS serves a registry by TLS. If client is set, it requires a certificate of the client. The
// name example.com, which the certificate of package httptest has, leads to it through a proxy:
// registries at loopback addresses need no valid certificate.
func serveTLS(ts *testscript.TestScript, r *registrytest.Registry, client bool) {
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	ts.Check(err)
	own := &x509.Certificate{SerialNumber: mathbig.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, own, own, key.Public(), key)
	ts.Check(err)
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	server.TLS = &tls.Config{}
	if client {
		server.TLS.ClientAuth = tls.RequireAnyClientCert
		server.TLS.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
			if !bytes.Equal(raw[0], der) {
				return errors.New("another certificate is expected")
			}
			return nil
		}
	}
	server.StartTLS()
	ts.Defer(server.Close)
	for name, block := range map[string]*pem.Block{
		"ca.pem":     {Type: "CERTIFICATE", Bytes: server.Certificate().Raw},
		"client.pem": {Type: "CERTIFICATE", Bytes: der},
		"client.key": {Type: "PRIVATE KEY", Bytes: keyBytes},
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), pem.EncodeToMemory(block), 0o600))
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "example.com:443" {
			http.Error(w, "no such host", http.StatusBadGateway)
			return
		}
		there, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := http.NewResponseController(w).Hijack() // nothing is sent before the answer
		if err != nil {
			return
		}
		defer here.Close()
		io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() {
			io.Copy(there, here)
			there.Close()
		}()
		io.Copy(here, there)
	}))
	ts.Defer(proxy.Close)
	ts.Setenv("HTTPS_PROXY", proxy.URL)
}

// printField prints one field of a document, named as in .config.Env or .layers[0].size, in one
// line of JSON; with no field the whole document, indented.
func printField(ts *testscript.TestScript, doc any, field []string) {
	raw, err := json.Marshal(doc)
	ts.Check(err)
	if len(field) == 0 {
		var out bytes.Buffer
		ts.Check(json.Indent(&out, raw, "", "  "))
		fmt.Fprintln(ts.Stdout(), out.String())
		return
	}
	var at any
	ts.Check(json.Unmarshal(raw, &at))
	path := strings.NewReplacer("[", ".", "]", "").Replace(field[0])
	for _, key := range strings.Split(strings.Trim(path, "."), ".") {
		switch v := at.(type) {
		case map[string]any:
			at = v[key]
		case []any:
			i, err := strconv.Atoi(key)
			if i < 0 {
				i += len(v)
			}
			if err != nil || i < 0 || i >= len(v) {
				ts.Fatalf("%s: no element %s", field[0], key)
			}
			at = v[i]
		default:
			at = nil
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	ts.Check(enc.Encode(at))
	ts.Stdout().Write(out.Bytes())
}
