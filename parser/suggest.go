package parser

import (
	"fmt"

	"github.com/layerbuild/layerbuild/internal/suggest"
)

// didYouMean adds the most similar option to an error.
func didYouMean(err error, val string, options []string) error {
	if m := suggest.Closest(val, options); m != "" {
		return fmt.Errorf("%w (did you mean %s?)", err, m)
	}
	return err
}
