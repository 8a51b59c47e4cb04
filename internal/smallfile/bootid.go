package smallfile

import (
	"strings"
	"sync"
)

// BootID returns the id that the kernel has given to the current boot of the machine, a random
// UUID. It reads the id once for the process.
func BootID() (string, error) { return bootID() }

var bootID = sync.OnceValues(func() (string, error) {
	id, err := Read("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
})
