package attest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	slsav02 "github.com/in-toto/attestation/go/predicates/provenance/v02"
	slsav1 "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intotov1 "github.com/in-toto/attestation/go/v1"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/moby/buildkit/solver/llbsolver/provenance/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/package-url/packageurl-go"
	"google.golang.org/protobuf/encoding/protojson"
)

// TestPredicateOfBuildKit decodes predicates with the types of BuildKit. Nothing is lost: encoded
// again, they have the same values.
func TestPredicateOfBuildKit(t *testing.T) {
	full := example()
	for _, tt := range []struct {
		name string
		o    Provenance
		into any
	}{
		{"v1 max", Provenance{Version: V1, BuilderID: "https://ci/1"},
			&types.ProvenancePredicateSLSA1{}},
		{"v1 min", Provenance{Version: V1, Min: true}, &types.ProvenancePredicateSLSA1{}},
		{"v0.2 max", Provenance{Version: V02, BuilderID: "x"}, &types.ProvenancePredicateSLSA02{}},
		{"v0.2 min", Provenance{Version: V02, Min: true}, &types.ProvenancePredicateSLSA02{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data, err := tt.o.Encode(full)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, tt.into); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(tt.into)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(values(t, data), values(t, again)); diff != "" {
				t.Errorf("BuildKit's types lose or add something (-ours +BuildKit's):\n%s", diff)
			}
		})
	}
}

// values decodes a document, without empty objects and zero values, which a type may leave out.
func values(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return compact(v)
}

func compact(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if e = compact(e); e != nil {
				out[k] = e
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		for i := range v {
			v[i] = compact(v[i])
		}
		if len(v) == 0 {
			return nil
		}
		return v
	case string:
		if v == "" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	}
	return v
}

// TestPredicateOfInToto decodes predicates with the published types of in-toto, and validates them.
func TestPredicateOfInToto(t *testing.T) {
	lenient := protojson.UnmarshalOptions{DiscardUnknown: true} // the extensions of BuildKit
	data, err := Provenance{BuilderID: "https://ci/1"}.Encode(example())
	if err != nil {
		t.Fatal(err)
	}
	var one slsav1.Provenance
	if err := lenient.Unmarshal(data, &one); err != nil {
		t.Fatal(err)
	}
	if err := one.Validate(); err != nil {
		t.Error(err)
	}
	if got := one.RunDetails.Metadata.InvocationId; got != "id" {
		t.Errorf("invocation %q", got)
	}
	if got := one.RunDetails.Metadata.StartedOn.AsTime(); !got.Equal(time.Unix(1, 0)) {
		t.Errorf("started on %s", got)
	}
	if got := len(one.BuildDefinition.ResolvedDependencies); got != 2 {
		t.Errorf("%d materials", got)
	}
	if data, err = (Provenance{Version: V02}).Encode(example()); err != nil {
		t.Fatal(err)
	}
	var old slsav02.Provenance
	if err := lenient.Unmarshal(data, &old); err != nil {
		t.Fatal(err)
	}
	if len(old.Materials) != 2 || old.BuildType != buildTypeV02 {
		t.Errorf("%v", &old)
	}
}

// TestStatementOfInToto validates a statement.
func TestStatementOfInToto(t *testing.T) {
	predicate, err := Provenance{BuilderID: "https://ci/1"}.Encode(example())
	if err != nil {
		t.Fatal(err)
	}
	id := ocispec.DescriptorEmptyJSON.Digest
	data, err := json.Marshal(NewStatement(Attestation{PredicateType: PredicateV1,
		Predicate: predicate}, []Subject{{Name: "pkg:docker/a@b", Digest: DigestOf(id)}}))
	if err != nil {
		t.Fatal(err)
	}
	var s intotov1.Statement
	if err := protojson.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	if s.Type != intotov1.StatementTypeUri || s.Subject[0].Digest["sha256"] != id.Encoded() {
		t.Errorf("%v", &s)
	}
}

// TestPURL compares package URLs with those of the published package.
func TestPURL(t *testing.T) {
	amd64 := &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	id := ocispec.DescriptorEmptyJSON.Digest.String()
	for _, tt := range []struct {
		name, kind string
		p          *ocispec.Platform
		want       packageurl.PackageURL
	}{
		{"alpine", "docker", nil, *packageurl.NewPackageURL("docker", "", "alpine", "latest", nil, "")},
		{"alpine:3.22", "docker", amd64, *packageurl.NewPackageURL("docker", "", "alpine", "3.22",
			packageurl.Qualifiers{{Key: "platform", Value: "linux/amd64"}}, "")},
		{"localhost:5000/a/b_c/d:v1", "docker", amd64, *packageurl.NewPackageURL("docker",
			"localhost:5000/a/b_c", "d", "v1",
			packageurl.Qualifiers{{Key: "platform", Value: "linux/amd64"}}, "")},
		{"user/app@" + id, "oci", &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"},
			*packageurl.NewPackageURL("oci", "user", "app", "",
				packageurl.Qualifiers{{Key: "digest", Value: id},
					{Key: "platform", Value: "linux/arm/v6"}}, "")},
	} {
		n, err := reference.Parse(tt.name)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := PURL(tt.kind, n, tt.p), tt.want.ToString(); got != want {
			t.Errorf("PURL(%s) = %s, want %s", tt.name, got, want)
		}
	}
}
