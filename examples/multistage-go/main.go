// Command hello is a static program that an image can contain as its only file.
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
