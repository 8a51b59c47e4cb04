// Package smallfile reads small files with few system calls: four, instead of eleven by
// os.ReadFile.
//
// The os package tries to register each file with epoll, and makes it non-blocking for that and
// blocking again. A build without changes opens some sixty files and does little else.
//
// It imports no other package of the module. It makes the system calls open, read and close, and
// only reads.
//
// To test it, run go test ./internal/smallfile as any user.
package smallfile
