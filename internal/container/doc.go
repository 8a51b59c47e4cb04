// Package container runs commands on an image, in a file system that is removed afterwards.
package container
