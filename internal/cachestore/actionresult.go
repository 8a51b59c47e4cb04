package cachestore

import (
	"encoding/binary"
	"errors"
)

// outputFile is an OutputFile of an ActionResult, of the remote execution API of Bazel:
// https://github.com/bazelbuild/remote-apis, build/bazel/remote/execution/v2.
type outputFile struct {
	path     string // field 1
	hash     string // field 2, a Digest: its field 1, in hexadecimal
	size     int64  // and its field 2
	contents []byte // field 5
}

// outputFiles is the number of the field of an ActionResult that has its files.
const outputFiles = 2

// The wire types of the encoding: https://protobuf.dev/programming-guides/encoding/.
const (
	wireVarint = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// encodeActionResult returns an ActionResult with files.
func encodeActionResult(files []outputFile) []byte {
	var out []byte
	for _, f := range files {
		sum := appendField(nil, 1, []byte(f.hash))
		if f.size != 0 {
			sum = binary.AppendUvarint(append(sum, 2<<3|wireVarint), uint64(f.size))
		}
		file := appendField(appendField(nil, 1, []byte(f.path)), 2, sum)
		if len(f.contents) > 0 {
			file = appendField(file, 5, f.contents)
		}
		out = appendField(out, outputFiles, file)
	}
	return out
}

// appendField appends a field of bytes.
func appendField(to []byte, number int, value []byte) []byte {
	to = binary.AppendUvarint(to, uint64(number)<<3|wireBytes)
	return append(binary.AppendUvarint(to, uint64(len(value))), value...)
}

// decodeActionResult returns the files of an ActionResult. Other fields are skipped: servers add
// some.
func decodeActionResult(data []byte) (files []outputFile, err error) {
	err = fields(data, func(number, _ uint64, value []byte) error {
		if number != outputFiles {
			return nil
		}
		var f outputFile
		err := fields(value, func(number, _ uint64, value []byte) error {
			switch number {
			case 1:
				f.path = string(value)
			case 2:
				return fields(value, func(number, n uint64, value []byte) error {
					switch number {
					case 1:
						f.hash = string(value)
					case 2:
						f.size = int64(n)
					}
					return nil
				})
			case 5:
				f.contents = value
			}
			return nil
		})
		files = append(files, f)
		return err
	})
	return files, err
}

var errWire = errors.New("not a message of Protocol Buffers")

// fields calls f with each field of a message: with its number, and n or value according to its
// type.
func fields(data []byte, f func(number, n uint64, value []byte) error) error {
	for len(data) > 0 {
		tag, used := binary.Uvarint(data)
		if used <= 0 {
			return errWire
		}
		data = data[used:]
		var n uint64
		var value []byte
		switch tag & 7 {
		case wireVarint:
			if n, used = binary.Uvarint(data); used <= 0 {
				return errWire
			}
			data = data[used:]
		case wire64, wire32:
			size := 8
			if tag&7 == wire32 {
				size = 4
			}
			if len(data) < size {
				return errWire
			}
			data = data[size:]
		case wireBytes:
			n, used := binary.Uvarint(data)
			if used <= 0 || n > uint64(len(data)-used) {
				return errWire
			}
			value, data = data[used:used+int(n)], data[used+int(n):]
		default:
			return errWire
		}
		if err := f(tag>>3, n, value); err != nil {
			return err
		}
	}
	return nil
}
