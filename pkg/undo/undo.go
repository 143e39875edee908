// Package undo takes back what a failed operation has already done.
package undo

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// A Stack holds the undo steps of one operation, oldest first. The zero Stack
// is empty and ready to use.
type Stack []step

type step struct {
	what string
	do   func() error
}

// Failed says that a step could not be undone: something was left behind.
type Failed struct {
	What string
	Err  error
}

func (f *Failed) Error() string { return "undo: " + f.What + ": " + f.Err.Error() }
func (f *Failed) Unwrap() error { return f.Err }

// Push records how to take back the step that has just succeeded. The words in
// what complete the sentence "undo: …".
func (s *Stack) Push(what string, do func() error) {
	*s = append(*s, step{what, do})
}

// OnError runs the steps newest first if *err is set, or if the operation
// panicked, and joins to *err what could not be undone, each as a *Failed. A
// panic becomes an error. Defer it with the address of the named result:
//
//	defer steps.OnError(&err)
func (s *Stack) OnError(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
	if *err == nil {
		return
	}
	for i := len(*s) - 1; i >= 0; i-- {
		if uerr := (*s)[i].run(); uerr != nil {
			*err = errors.Join(*err, &Failed{(*s)[i].what, uerr})
		}
	}
}

// run takes the step back. One that panics does not keep the others from theirs.
func (s step) run() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return s.do()
}

// Incomplete reports whether err says that an undo step failed.
func Incomplete(err error) bool {
	f := (*Failed)(nil)
	return errors.As(err, &f)
}
