package outline

import (
	"os"
	"testing"

	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }
