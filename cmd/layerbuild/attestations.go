package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/spf13/pflag"
)

// The variables of buildx for attestations.
const (
	noAttestations     = "BUILDX_NO_DEFAULT_ATTESTATIONS"
	metadataProvenance = "BUILDX_METADATA_PROVENANCE"
)

func (f *buildFlags) defineAttestations(fs *pflag.FlagSet) {
	fs.StringVar(&f.provenance, "provenance", "",
		"`true|false|min|max|SPEC` record how the image was built\n"+
			"The image becomes an index with an attestation. SPEC is KEY=VALUE,… with the keys "+
			"mode=min|max, version=v1|v0.2, builder-id, inline-only, disable-env, filename, "+
			"reproducible and complete-materials. Without a mode it is max, which includes build "+
			"arguments and the Dockerfile.")
	fs.StringVar(&f.sbom, "sbom", "",
		"`true|false|generator=IMAGE` list the software in the image\n"+
			"The image becomes an index with an attestation in the format SPDX. IMAGE is a "+
			"scanner that follows BuildKit's protocol; with true the built-in scanner makes "+
			"the list.")
	fs.Var((*list)(&f.attest), "attest", "`type=sbom|provenance[,…]` make an attestation\n"+
		"--sbom and --provenance are short forms of it.")
}

// attestations parses the flags for attestations.
func (f *buildFlags) attestations(o *imagebuild.Options, e *env) error {
	var err error
	if f.provenance+f.sbom+f.metadataFile != "" || f.attest != nil {
		o.Attest.Version = toolVersion() // other builds do not spend the time
	}
	o.Attest.Options, err = attest.Parse(attest.Flags{Provenance: f.provenance, SBOM: f.sbom,
		Attest: f.attest})
	if value, ok := errors.AsType[*attest.Error](err); ok {
		err = badValue(value.Flag, value.Value, value.Err)
	}
	if v := e.getenv(noAttestations); v != "" {
		if _, perr := strconv.ParseBool(v); perr != nil {
			err = errors.Join(err,
				fmt.Errorf("%s=%s: true or false is expected", noAttestations, v))
		}
	}
	if f.metadataFile != "" {
		mode, merr := metadataDetail(e)
		o.Attest.Metadata, err = mode, errors.Join(err, merr)
	}
	return err
}

// metadataDetail returns how much of the provenance the file of --metadata-file has: "min", "max",
// or "" for nothing.
func metadataDetail(e *env) (string, error) {
	value := e.getenv(metadataProvenance)
	switch value {
	case "", "min":
		return "min", nil
	case "max":
		return "max", nil
	case "disabled":
		return "", nil
	}
	is, err := strconv.ParseBool(value)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s=%s: min, max or disabled is expected", metadataProvenance, value)
	case is:
		return "min", nil
	}
	return "", nil
}
