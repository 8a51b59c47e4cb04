package export

import (
	"context"
	"fmt"

	"github.com/layerbuild/layerbuild/internal/event"
)

// image exports to the local store, which has the content already, and to registries.
type image struct {
	env  Env
	spec Spec
}

func (i *image) Export(ctx context.Context, img *Image, sink event.Sink) error {
	tags, err := names(img, i.spec)
	if err != nil {
		return err
	}
	if i.env.Tagger != nil && !i.spec.ByDigest && !img.Absent {
		for _, tag := range tags {
			if err := i.env.Tagger.Tag(ctx, tag.String(), img.Root); err != nil {
				return fmt.Errorf("name %s: %w", tag, err)
			}
		}
	}
	if !i.spec.Push {
		return nil
	}
	if len(tags) == 0 {
		return fmt.Errorf("output %s: an image to push needs a name; give -t NAME or name=NAME",
			i.spec)
	}
	pushed := map[string]bool{}
	for _, tag := range tags {
		name := tag.String()
		if i.spec.ByDigest {
			name = tag.Repository()
		}
		if pushed[name] {
			continue
		}
		pushed[name] = true
		if err := i.push(ctx, img, name, sink); err != nil {
			return err
		}
	}
	return nil
}

func (i *image) push(ctx context.Context, img *Image, name string, sink event.Sink) error {
	spec := i.spec
	spec.Dest = name // each name is a separate job
	return report(spec, "push "+name, sink, func(j *job) (string, error) {
		o := PushOptions{ByDigest: i.spec.ByDigest, Insecure: i.spec.Insecure, ID: j.id, Sink: sink}
		if err := i.env.Pusher.Push(ctx, name, img.Root, img.Content, o); err != nil {
			return "", err // the error names the image and the registry
		}
		return img.Root.Digest.String(), nil
	})
}
