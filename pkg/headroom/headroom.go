// Package headroom gives the main goroutine, by being imported, a stack that a
// CNI call does not outgrow.
//
// A goroutine starts with 2 KiB and moves to twice the room whenever it needs
// more. Each size up to 16 KiB is cut from a span of its own, every page of which
// is written as it is cut, and each move looks up all frames in the binary's
// tables: some thirty page faults before a call's work is done. One step to 32
// KiB costs three. The package imports nothing, so that it is initialized before
// all but the runtime.
package headroom

// frame makes 32 KiB the next size that is enough, in bytes.
const frame = 20 << 10

func init() { reach(0) } //nolint:gochecknoinits // main.main is too late: other packages' initialization has grown the stack by then

// reach has the stack grown as it is entered, for the frame that it would need
// with an n above 0. With 0 it touches nothing of it.
//
//go:noinline
func reach(n int) byte {
	if n == 0 {
		return 0
	}
	var room [frame]byte
	return last(&room, n)
}

//go:noinline
func last(room *[frame]byte, n int) byte { return room[frame-n] }
