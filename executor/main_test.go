package executor_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/archive"
)

func TestMain(m *testing.M) {
	executor.Main(archive.Unpack)
	if len(os.Args) == 2 && os.Args[1] == "ids" {
		fmt.Println(os.Getuid(), os.Geteuid())
		return
	}
	os.Exit(m.Run())
}
