package unpack

import (
	"bytes"
	"io"
	"os/exec"
	"strings"
	"testing"
)

func compress(t *testing.T, program string, data []byte) []byte {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("needs %s", program)
	}
	cmd := exec.Command(path, "-c")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDecompress(t *testing.T) {
	text := []byte(strings.Repeat("some text that can be made shorter\n", 20000))
	for _, test := range []struct {
		program string
		want    Compression
	}{{"cat", None}, {"gzip", Gzip}, {"zstd", Zstd}, {"bzip2", Bzip2}, {"xz", XZ}} {
		t.Run(test.program, func(t *testing.T) {
			one := text
			if test.want != None {
				one = compress(t, test.program, text)
			}
			for members := 1; members <= 2; members++ {
				r, c, err := Decompress(bytes.NewReader(bytes.Repeat(one, members)))
				if err != nil {
					t.Fatal(err)
				}
				if c != test.want {
					t.Errorf("Decompress says %q, want %q", c, test.want)
				}
				got, err := io.ReadAll(r)
				if err != nil || !bytes.Equal(got, bytes.Repeat(text, members)) {
					t.Errorf("%d members: %d bytes, %v", members, len(got), err)
				}
				r.Close()
				r.Close()
				if _, err := r.Read(make([]byte, 1)); err == nil {
					t.Error("reading goes on after Close")
				}
			}
			if test.want == None {
				return
			}
			r, _, err := Decompress(bytes.NewReader(one[:len(one)-5]))
			if err == nil {
				_, err = io.ReadAll(r)
				r.Close()
			}
			if err == nil {
				t.Error("a stream that was cut reads without error")
			}
		})
	}
	for _, short := range []string{"", "x", "\x1f"} {
		r, c, err := Decompress(strings.NewReader(short))
		if err != nil || c != None {
			t.Fatalf("Decompress(%q) = %q, %v", short, c, err)
		}
		if got, err := io.ReadAll(r); string(got) != short || err != nil {
			t.Errorf("Decompress(%q) gives %q, %v", short, got, err)
		}
		r.Close()
	}
}
