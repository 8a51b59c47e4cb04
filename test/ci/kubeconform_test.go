package ci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// kubernetesSchema checks objects against the OpenAPI document of Kubernetes.
func kubernetesSchema(t *testing.T, text string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(module(t, "k8s.io/kubernetes@v1.37.2"),
		"api/openapi-spec/swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	var api struct{ Definitions map[string]any }
	if err := json.Unmarshal(data, &api); err != nil {
		t.Fatal(err)
	}
	strict(api.Definitions)
	schemas := map[string]any{}
	for file, name := range map[string]string{"configmap-v1": "io.k8s.api.core.v1.ConfigMap",
		"job-v1": "io.k8s.api.batch.v1.Job"} {
		schemas[file] = map[string]any{"$schema": "http://json-schema.org/draft-07/schema#",
			"definitions": api.Definitions, "$ref": "#/definitions/" + name}
	}
	conform(t, schemas, text)
}

// tektonSchema checks objects against the definitions of Tekton Pipelines.
func tektonSchema(t *testing.T, text string) {
	t.Helper()
	dir := filepath.Join(module(t, "github.com/tektoncd/pipeline@v1.0.0"), "config/300-crds")
	conform(t, definitions(t, "v1", map[string]string{
		"task-v1":        filepath.Join(dir, "300-task.yaml"),
		"taskrun-v1":     filepath.Join(dir, "300-taskrun.yaml"),
		"pipelinerun-v1": filepath.Join(dir, "300-pipelinerun.yaml"),
	}), text)
}

// argoSchema checks objects against the definition of Argo Workflows.
func argoSchema(t *testing.T, text string) {
	t.Helper()
	dir := module(t, "github.com/argoproj/argo-workflows/v3@v3.6.10")
	conform(t, definitions(t, "v1alpha1", map[string]string{"workflow-v1alpha1": filepath.Join(dir,
		"manifests/base/crds/full/argoproj.io_workflows.yaml")}), text)
}

// definitions returns the schemas of a version in files of definitions (CRDs).
func definitions(t *testing.T, version string, files map[string]string) map[string]any {
	t.Helper()
	schemas := map[string]any{}
	for kind, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		definition := documents(t, string(data))[0]
		for _, v := range get[[]any](t, definition, "spec", "versions") {
			if get[string](t, v, "name") != version {
				continue
			}
			api := get[map[string]any](t, v, "schema", "openAPIV3Schema")
			strict(api)
			api["$schema"] = "http://json-schema.org/draft-07/schema#"
			// metadata is an object of Kubernetes, which has definitions of its own.
			delete(get[map[string]any](t, api, "properties", "metadata"), "additionalProperties")
			schemas[kind] = api
		}
	}
	return schemas
}

// conform checks objects with kubeconform. The key of a schema is KIND-VERSION. Each object must be
// valid, and the first one of each kind invalid with an unknown field.
func conform(t *testing.T, schemas map[string]any, text string) {
	t.Helper()
	const version = "@v0.8.0"
	module(t, "github.com/yannh/kubeconform"+version)
	dir := t.TempDir()
	write := func(name string, data []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for name, schema := range schemas {
		data, err := json.Marshal(schema)
		write(name+".json", data, err)
	}
	check := func(file string) (string, error) {
		return goRun(t, dir, "github.com/yannh/kubeconform/cmd/kubeconform"+version, "-strict",
			"-verbose", "-schema-location",
			filepath.Join(dir, "{{.ResourceKind}}-{{.ResourceAPIVersion}}.json"), file)
	}
	out, err := check(write("objects.yaml", []byte(text), nil))
	n := len(documents(t, text))
	if err != nil || strings.Count(out, " is valid\n") != n {
		t.Errorf("%v, want %d valid objects:\n%s", err, n, out)
	}
	kinds := map[any]bool{}
	for _, doc := range documents(t, text) {
		if kinds[doc["kind"]] {
			continue
		}
		kinds[doc["kind"]] = true
		at, ok := doc["spec"].(map[string]any)
		if !ok {
			at = doc
		}
		at["mistake"] = true
		data, err := yaml.Marshal(doc)
		out, err := check(write("mistake.yaml", data, err))
		if err == nil || !strings.Contains(out, "'mistake' not allowed") {
			t.Errorf("%s: an unknown field is accepted: %v\n%s", doc["kind"], err, out)
		}
	}
}

// strict makes unknown fields mistakes in each object of a schema that lists its fields, and
// removes formats that are not those of JSON Schema.
func strict(schema any) {
	switch at := schema.(type) {
	case map[string]any:
		_, lists := at["properties"].(map[string]any)
		_, open := at["additionalProperties"]
		if lists && !open && at["x-kubernetes-preserve-unknown-fields"] != true {
			at["additionalProperties"] = false
		}
		if at["x-kubernetes-int-or-string"] == true || at["format"] == "int-or-string" {
			delete(at, "type")
		}
		if _, isText := at["format"].(string); isText {
			delete(at, "format")
		}
		for _, v := range at {
			strict(v)
		}
	case []any:
		for _, v := range at {
			strict(v)
		}
	}
}
