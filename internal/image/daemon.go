package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/opencontainers/go-digest"
)

// daemonFiles fetches the archive of an image from the docker daemon. It is fetched once and stays
// open until Resolver.Close.
func (r *Resolver) daemonFiles(ctx context.Context, name string) (files, error) {
	return r.daemon.Try(ctx, name, func() (files, error) {
		if r.engine == nil {
			return nil, errors.New("images of a docker daemon are not available here")
		}
		e, err := r.engine()
		if err != nil {
			return nil, err
		}
		body, err := e.Save(ctx, name)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		return r.spool(ctx, body)
	})
}

// inDaemon returns the reference to an image in the archive of a daemon, which has only this image.
func inDaemon(loc imageref.Ref) imageref.Ref {
	if digest.Digest(loc.Name).Validate() != nil {
		loc.Tag = loc.Name
	}
	return loc
}

// spool copies an archive, which may be compressed, to a file without a name and opens it.
func (r *Resolver) spool(ctx context.Context, body io.Reader) (files, error) {
	tmp, err := r.store.Temp()
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(tmp, &contextReader{ctx, body})
	if err == nil {
		_, err = tmp.Seek(0, io.SeekStart)
	}
	var f files
	if err == nil {
		f, err = r.openArchive(ctx, tmp)
	}
	if err != nil {
		tmp.Close()
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	return f, nil
}

// openStream opens an archive that is read from a stream, such as standard input. A regular file is
// read in its place.
func (r *Resolver) openStream(ctx context.Context, file *os.File) (files, error) {
	if fi, err := file.Stat(); err == nil && fi.Mode().IsRegular() {
		if at, err := file.Seek(0, io.SeekCurrent); err == nil && at == 0 {
			return r.openArchive(ctx, file)
		}
	}
	return r.spool(ctx, file)
}
