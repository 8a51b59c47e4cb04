package parser

// File is a Dockerfile, parsed but not expanded. It does not change: several
// plans can be made of it, also at once.
type File struct {
	name string
}

// Target is what a File offers to build.
type Target struct {
	// Name is the stage's name, empty for a stage without one.
	Name string
	// Description is the comment above FROM that starts with the name.
	Description string
	// Base is what FROM names, as written.
	Base string
	// Platform is the --platform of FROM, as written.
	Platform string
	// Default is true for the last stage.
	Default bool
	Range   Range
}

// Parse reads a Dockerfile. name is for messages. The error is an *Error.
func Parse(name string, src []byte) (*File, error) {
	return &File{name: name}, nil
}

// Targets lists the stages.
func (f *File) Targets() []Target { return nil }

// Plan chooses the stages that the target needs. The error is an *Error.
func (f *File) Plan(o PlanOptions) (*Plan, error) { return &Plan{}, nil }
