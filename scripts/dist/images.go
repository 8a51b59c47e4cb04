package main

import (
	"embed"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

//go:embed image
var imageFiles embed.FS

// helper is a program that gets credentials for the registries of a cloud.
type helper struct{ name, program, pkg string }

// credentialHelpers are built from the modules that helpers/go.mod names.
var credentialHelpers = [...]helper{
	{"ecr", "docker-credential-ecr-login",
		"github.com/awslabs/amazon-ecr-credential-helper/ecr-login/cli/" +
			"docker-credential-ecr-login"},
	{"gcr", "docker-credential-gcr", "github.com/GoogleCloudPlatform/docker-credential-gcr/v2"},
	{"acr", "docker-credential-acr-env", "github.com/chrismellard/docker-credential-acr-env"},
}

// layerbuild returns a command that runs the program on this machine, with a state of its own.
func (d *distribution) layerbuild(p program, args ...string) *exec.Cmd {
	cmd := d.command("", d.host, args...)
	cmd.Env = append(cmd.Env, "LAYERBUILD_ROOT="+filepath.Join(d.work, "state"),
		"SOURCE_DATE_EPOCH="+strconv.FormatInt(p.time.Unix(), 10))
	return cmd
}

// describe writes the list of the software in a program, which the program itself makes.
func (d *distribution) describe(p program) error {
	context := filepath.Dir(p.path)
	archive := archiveName(p) + ".oci.tar"
	build := d.layerbuild(p, "build", "-f", "-", "--platform", "linux/"+p.arch,
		"-o", "type=oci,dest="+filepath.Join(d.work, archive), context)
	build.Stdin = strings.NewReader("FROM scratch\nCOPY layerbuild /usr/bin/layerbuild\n")
	if err := quietly(build); err != nil {
		return err
	}
	list := d.layerbuild(p, "sbom", "--format", "spdx", "--platform", "linux/"+p.arch,
		"-o", filepath.Join(d.made, archiveName(p)+".spdx.json"), "oci-archive:"+archive)
	list.Dir = d.work // the document has the name of the archive as it is given
	return quietly(list)
}

// dockerfiles has the Dockerfile of each image.
var dockerfiles = map[string]string{"image": "Dockerfile", "inplace": "inplace.Dockerfile"}

// makeImages makes images of all architectures as OCI archives.
func (d *distribution) makeImages(o options) error {
	context := filepath.Join(d.work, "context")
	part, err := fs.Sub(imageFiles, "image")
	if err != nil {
		return err
	}
	if err := os.CopyFS(context, part); err != nil {
		return err
	}
	if err := addLinks(context); err != nil {
		return err
	}
	certificates := filepath.Join(context, "ca-certificates.crt")
	if err := os.WriteFile(certificates, roots(), 0o644); err != nil {
		return err
	}
	var p program
	for _, arch := range o.archs {
		if p, err = d.build(arch, filepath.Join(context, arch)); err != nil {
			return err
		}
		if !slices.Contains(o.images, "image") {
			continue
		}
		if err := d.debian(p, context); err != nil {
			return err
		}
		for _, h := range credentialHelpers {
			if slices.Contains(o.helpers, h.name) {
				if err := d.buildHelper(h, arch, context); err != nil {
					return err
				}
			}
		}
	}
	for _, image := range o.images {
		if err := d.makeImage(p, image, context, o); err != nil {
			return err
		}
	}
	return nil
}

// executorLinks are the links with the name of kaniko's program in the images: the directory of the
// context, and the target.
var executorLinks = map[string]string{"kaniko": "/usr/bin/layerbuild", "links": "layerbuild"}

// addLinks makes the links, which cannot be embedded, in the context.
func addLinks(context string) error {
	for dir, target := range executorLinks {
		if err := os.Mkdir(filepath.Join(context, dir), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(target, filepath.Join(context, dir, "executor")); err != nil {
			return err
		}
	}
	return nil
}

// makeImage makes one image.
func (d *distribution) makeImage(p program, image, context string, o options) error {
	name := "layerbuild-" + strings.TrimPrefix(p.version, "v") + "-" + image + ".oci.tar"
	args := []string{"build", "-f", filepath.Join(context, dockerfiles[image]), "--platform",
		"linux/" + strings.Join(o.archs, ",linux/"), "--build-arg", "VERSION=" + p.version,
		"-o", "type=oci,dest=" + filepath.Join(d.made, name)}
	if image == "image" {
		for _, h := range o.helpers {
			args = append(args, "--build-arg", strings.ToUpper(h)+"=yes")
		}
	}
	return quietly(d.layerbuild(p, append(args, context)...))
}

// debian unpacks the packages of the ordinary image into the context.
func (d *distribution) debian(p program, context string) error {
	cmd := d.command(p.arch, "sh", filepath.Join(context, "rootfs.sh"), p.arch,
		filepath.Join(context, p.arch, "rootfs.tar"))
	cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH="+strconv.FormatInt(p.time.Unix(), 10))
	return quietly(cmd)
}

// buildHelper compiles a credential helper into the context.
func (d *distribution) buildHelper(h helper, arch, context string) error {
	cmd := d.command(arch, d.goCommand, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w",
		"-o", filepath.Join(context, arch, h.program), h.pkg)
	cmd.Dir = filepath.Join(d.root, "scripts", "dist", "helpers")
	if err := quietly(cmd); err != nil {
		return fmt.Errorf("build the credential helper %s for %s: %w", h.name, arch, err)
	}
	return nil
}

// roots returns the certificates that Mozilla trusts, as PEM. Certificates that are trusted only
// with a condition are omitted, because a file of certificates cannot express it.
func roots() []byte {
	var b []byte
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
				Bytes: root.Certificate})...)
		}
	}
	return b
}
