package explain

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/sorting"
)

// Files are the files that a step takes from one place.
type Files struct {
	// From is the name of a stage, an image or a context; "" is the context of the build.
	From string
	List []File

	dirs  bool // List has directories of a depth in place of files
	depth int
}

// File is a file, or a directory with all that is in it, with a checksum.
type File struct {
	Path string
	Sum  uint64
}

// Limits of a list of files.
const (
	maxList    = 1 << 20 // bytes of a list that is kept
	maxEntries = 50_000  // of a list that is being made
	maxDepth   = 8       // of the directories of a list that is longer
)

// Add adds a file. Its path may have any bytes. Files that are in one directory must be added one
// after the other. If they are many, their directories take their places.
func (f *Files) Add(name string, sum uint64) {
	name = strings.ToValidUTF8(name, "\uFFFD")
	if f.dirs {
		f.List = appendJoined(f.List, File{name, sum}, f.depth)
	} else {
		f.List = append(f.List, File{name, sum})
	}
	for len(f.List) > maxEntries {
		if f.depth--; !f.dirs {
			f.dirs, f.depth = true, maxDepth
		}
		f.List = joined(f.List, f.depth)
	}
}

// Seal sorts the list and, if it is long, replaces files by the directories in which they are. The
// directories have the greatest depth at which the list is short enough.
func (f *Files) Seal() {
	sorting.StableFunc(f.List, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	if f.size() <= maxList {
		return
	}
	depth := 0
	for _, file := range f.List {
		depth = max(depth, strings.Count(file.Path, "/"))
	}
	whole := f.List
	for ; depth >= 0; depth-- {
		if f.List = joined(whole, depth); f.size() <= maxList {
			return
		}
	}
}

func (f *Files) size() int {
	n := 0
	for _, file := range f.List {
		n += len(file.Path) + 18
	}
	return n
}

// joined replaces the files below directories of a depth by the directories. Depth 0 is the whole
// list.
func joined(list []File, depth int) (out []File) {
	for _, file := range list {
		out = appendJoined(out, file, depth)
	}
	return out
}

// appendJoined appends a file, or adds it to the last entry if that is the directory.
func appendJoined(list []File, file File, depth int) []File {
	name := upTo(file.Path, depth)
	if name != strings.TrimSuffix(file.Path, "/") {
		name += "/"
	} else {
		name = file.Path
	}
	if n := len(list); n == 0 || list[n-1].Path != name {
		list = append(list, File{Path: name})
	}
	last := &list[len(list)-1]
	last.Sum = (last.Sum ^ file.Sum) * 1099511628211 // FNV
	return list
}

// upTo returns the first parts of a path.
func upTo(name string, parts int) string {
	if parts == 0 {
		return "."
	}
	at := 0
	for range parts {
		next := strings.IndexByte(name[at:], '/')
		if next < 0 {
			return name
		}
		at += next + 1
	}
	return path.Clean(name[:at])
}

// compareFiles compares the files of two steps.
func compareFiles(old, s *Step) (list []Change) {
	for i := range s.Files {
		f := &s.Files[i]
		before := map[string]uint64{}
		found := false
		for _, o := range old.Files {
			if o.From == f.From {
				found = true
				for _, file := range o.List {
					before[file.Path] = file.Sum
				}
			}
		}
		if !found {
			continue
		}
		start := len(list)
		for _, file := range f.List {
			was, ok := before[file.Path]
			delete(before, file.Path)
			switch {
			case !ok:
				list = append(list, Change{Name: file.Path, How: IsNew, From: f.From})
			case was != file.Sum:
				list = append(list, Change{Name: file.Path, How: IsChanged, From: f.From})
			}
		}
		for name := range before {
			list = append(list, Change{Name: name, How: IsGone, From: f.From})
		}
		sorting.StableFunc(list[start:], func(a, b Change) int {
			return strings.Compare(a.Name, b.Name)
		})
	}
	return list
}

// MarshalJSON returns the list as one string, of a line for each file.
func (f Files) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	for _, file := range f.List {
		fmt.Fprintf(&b, "%x %s\x00", file.Sum, file.Path)
	}
	return json.Marshal(struct {
		From string `json:"from,omitempty"`
		List string `json:"list"`
	}{f.From, b.String()})
}

// UnmarshalJSON is the opposite of MarshalJSON.
func (f *Files) UnmarshalJSON(data []byte) error {
	var doc struct{ From, List string }
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	f.From, f.List = doc.From, nil
	for rest := doc.List; rest != ""; {
		line, next, ok := strings.Cut(rest, "\x00")
		sum, name, space := strings.Cut(line, " ")
		n, err := strconv.ParseUint(sum, 16, 64)
		if !ok || !space || err != nil {
			return fmt.Errorf("a list of files has the line %q", line)
		}
		f.List = append(f.List, File{name, n})
		rest = next
	}
	return nil
}
