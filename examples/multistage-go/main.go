// Command hello shows that a static program is all that an image needs.
package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	names := os.Args[1:]
	if len(names) == 0 {
		names = []string{"World"}
	}
	for _, name := range names {
		fmt.Printf("Hello %s, from %s/%s\n", name, runtime.GOOS, runtime.GOARCH)
	}
}
