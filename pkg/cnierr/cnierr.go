// Package cnierr gives errors the codes of the CNI specification.
//
// A code is given once, where its meaning is known; the words added on the way
// up are kept. Only package plugin turns the result into JSON.
package cnierr

import (
	"errors"
	"fmt"
)

// The codes of the CNI specification, section 5, and those of this suite from
// 100 on.
const (
	IncompatibleVersion = 1   // the configuration's cniVersion is not spoken
	UnsupportedField    = 2   // a field is understood but cannot be done here
	UnknownContainer    = 3   // there is no such container
	InvalidEnvironment  = 4   // a CNI_* variable is missing or malformed
	IOFailure           = 5   // a file could not be read or written
	DecodingFailure     = 6   // the configuration is not the expected JSON
	InvalidConfig       = 7   // the configuration can never work
	InvalidNetns        = 8   // the sandbox cannot be entered, or is the host
	TryAgain            = 11  // busy: the same call may succeed later
	NotAvailable        = 50  // STATUS: no ADD can succeed now
	Limited             = 51  // STATUS: containers would have limited connectivity
	AlreadyAttached     = 100 // this attachment exists and its sandbox lives
	PortTaken           = 101 // a host port belongs to another live container
	CheckFailed         = 102 // CHECK: the kernel does not have what ADD made
	Exhausted           = 103 // IPAM: no address is free
	Internal            = 999 // a bug, or the kernel's refusal
)

// Error is an error with a CNI code.
type Error struct {
	Code    uint
	Err     error
	Details string // optional: what the runtime shows below the message
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// With gives err a code, unless one was given further down, where more was
// known. A nil err stays nil.
func With(code uint, err error) error {
	if err == nil {
		return nil
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	return &Error{Code: code, Err: err}
}

// Newf is With(code, fmt.Errorf(format, args…)).
func Newf(code uint, format string, args ...any) error {
	return With(code, fmt.Errorf(format, args...))
}

// Explain gives err details: an explanation for people, where the message is a
// text of the reference that callers match. The code stays; a nil err stays nil.
func Explain(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Code: Code(err), Err: err, Details: fmt.Sprintf(format, args...)}
}

// Config reports a configuration that can never work (code 7).
func Config(format string, args ...any) error { return Newf(InvalidConfig, format, args...) }

// Env reports a malformed environment (code 4).
func Env(format string, args ...any) error { return Newf(InvalidEnvironment, format, args...) }

// Decode reports a configuration that is not the expected JSON (code 6).
func Decode(err error) error { return With(DecodingFailure, err) }

// Netns reports a sandbox that cannot be used (code 8).
func Netns(err error) error { return With(InvalidNetns, err) }

// Check reports a difference between what ADD made and what is (code 102).
func Check(format string, args ...any) error { return Newf(CheckFailed, format, args...) }

// Code returns the code that err was given, or 999 where none was. Of joined
// errors the first code counts.
func Code(err error) uint {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// Details returns the details that err was given, or "".
func Details(err error) string {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Details
	}
	return ""
}
