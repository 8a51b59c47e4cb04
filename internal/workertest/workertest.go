package workertest

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// The variables in which Run passes the name and the directory to a worker's process.
const (
	variableName = "WORKERTEST_NAME"
	variableDir  = "WORKERTEST_DIR"
)

// Run calls work with one directory in n goroutines of this process and, at the same time, in n
// processes, and returns the directory. Each worker has a different name. In the processes, which
// run the test again, Run does not return.
func Run(t *testing.T, n int, work func(dir, name string) error) string {
	t.Helper()
	if name := os.Getenv(variableName); name != "" {
		if err := work(os.Getenv(variableDir), name); err != nil {
			t.Fatal(err)
		}
		t.SkipNow()
	}
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=p%d", variableName, i),
				variableDir+"="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("process %d: %v\n%s", i, err, out)
			}
		})
		wg.Go(func() {
			if err := work(dir, fmt.Sprintf("g%d", i)); err != nil {
				t.Errorf("goroutine %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	return dir
}
