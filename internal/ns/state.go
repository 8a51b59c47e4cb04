package ns

import (
	"encoding/json"
	"fmt"
)

// stateVar is the environment variable that marks the second process.
const stateVar = "_LAYERBUILD_NS"

// state is the information that the first process passes to the second.
type state struct {
	// PPID is the pid of the first process, or 0 if it is this process.
	PPID int `json:"ppid,omitempty"`
	// UID and GID are the ids of the user, outside of the namespace.
	UID int `json:"uid"`
	GID int `json:"gid"`
	// Ready is the descriptor from which a byte is read once the ids are mapped, or 0 if they are
	// mapped already.
	Ready   int      `json:"ready,omitempty"`
	Reasons []string `json:"reasons,omitempty"`
}

func (s state) String() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // numbers and strings always marshal
	}
	return string(b)
}

func parseState(text string) (state, error) {
	var s state
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("read %s: %w", stateVar, err)
	}
	return s, nil
}
