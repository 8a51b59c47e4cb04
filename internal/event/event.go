package event

import "time"

// Sink receives events. It must be safe for concurrent use and must not block for long. A nil Sink
// is not valid; use Discard.
type Sink func(Event)

// Discard is a Sink that ignores all events.
func Discard(Event) {}

// Event is one of the types below.
type Event interface{ event() }

// ID names one line of work (a step, a pull, an export) for the length of a build. Equal work has
// equal IDs.
type ID string

// Start is sent when a piece of work begins.
type Start struct {
	ID ID
	// the text for the user: "[build 2/5] RUN make", "pull docker.io/library/busybox:latest"
	Name  string
	Stage string // the stage's name; "" for work without a stage
	File  string // the Dockerfile; "" if there is no line
	Line  int    // first line in File, from 1; 0: none
	// Inputs are the pieces of work whose results it uses, as far as they are known. They need not
	// be part of the build.
	Inputs []ID
	Time   time.Time // when it was begun
}

// Done is sent when a piece of work that was begun has ended.
type Done struct {
	ID     ID
	Cached bool   // the result was taken from the cache
	Err    error  // nil: success; context.Canceled: another error or the user ended the build
	Repair bool   // Err is damage that the build repairs: the work begins again
	Note   string // a short result: a digest, a name; may be empty
	Time   time.Time
}

// Reason is sent before a step runs, if an earlier build had steps of the same Dockerfile.
type Reason struct {
	ID   ID
	Text string // what differs, such as "src/app.ts changed (and 2 more files)"
	New  bool   // the step was not in an earlier build
	Time time.Time
}

// Log is a piece of the output of a step's command. A piece may end within a line or a character.
// Data is valid until the Sink returns; a Sink that keeps it makes a copy.
type Log struct {
	ID     ID
	Stream int // 1 standard output, 2 standard error
	Data   []byte
	Time   time.Time
}

// Progress is the progress of a part of a piece of work: a blob's download, a layer's unpacking, an
// upload.
type Progress struct {
	ID      ID     // the piece of work it is a part of
	Part    string // the part's name: "download sha256:1234…", unique within ID
	Current int64  // bytes
	Total   int64  // bytes; 0: not known
	Done    bool   // this part has ended
	Time    time.Time
}

// Warning is reported once and does not end the build.
type Warning struct {
	ID      ID     // the work that it is about; "" for none
	Rule    string // the lint rule's name; "" for other warnings
	Message string
	Detail  string // describes the rule; may be empty
	URL     string // the address of the rule's documentation; may be empty
	File    string
	Source  string // the content of File, if it is known
	Line    int    // from 1; 0: none
	End     int    // the last line; less than Line: the same line
	Time    time.Time
}

// Expect is the number of pieces of work of the build, including those that have begun. It may be
// sent again when more is known; the last one is valid.
type Expect struct {
	Work int
	Time time.Time
}

// Result is the last event of a successful build.
type Result struct {
	Names  []string // names given to the image
	Digest string   // the manifest's or index's digest
	Time   time.Time
}

func (Start) event()    {}
func (Done) event()     {}
func (Reason) event()   {}
func (Log) event()      {}
func (Progress) event() {}
func (Warning) event()  {}
func (Expect) event()   {}
func (Result) event()   {}
