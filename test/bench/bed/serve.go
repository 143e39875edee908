package bed

import (
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
)

// Argument is the first argument of a process that is to serve a bed.
const Argument = "bed"

// Serve serves a bed on standard input and output until the parent closes them.
func Serve() error {
	debug.SetGCPercent(400) // little garbage, and no collection inside a timed call is worth its noise
	s := rpc.NewServer()
	if err := s.Register(new(Bed)); err != nil {
		return err
	}
	s.ServeConn(pipe{os.Stdin, os.Stdout})
	return nil
}

// pipe joins the two directions.
type pipe struct {
	io.ReadCloser
	io.WriteCloser
}

// Close closes both directions.
func (p pipe) Close() error { return errors.Join(p.ReadCloser.Close(), p.WriteCloser.Close()) }

// Client is the parent's end of a bed.
type Client struct {
	rpc     *rpc.Client
	process *exec.Cmd
}

// Start starts this program again, in new namespaces, and opens a bed in it.
func Start(s Setup) (*Client, error) {
	cmd := exec.Command("/proc/self/exe", Argument)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("bed: %w", err)
	}
	c := &Client{rpc.NewClient(pipe{out, in}), cmd}
	if err := c.rpc.Call("Bed.Open", s, &Nothing{}); err != nil {
		return nil, errors.Join(fmt.Errorf("bed: %w", err), c.Close())
	}
	return c, nil
}

// Close ends the bed and everything in it.
func (c *Client) Close() error {
	return errors.Join(c.rpc.Close(), c.process.Wait())
}

// ask calls one method of the bed.
func ask[R any](c *Client, method string, arg any) (R, error) {
	var r R
	err := c.rpc.Call("Bed."+method, arg, &r)
	return r, err
}

// Prepare makes n sandboxes.
func (c *Client) Prepare(n int) error {
	_, err := ask[Nothing](c, "Prepare", n)
	return err
}

// Call carries out one verb.
func (c *Client) Call(a Ask) (Cost, error) { return ask[Cost](c, "Call", a) }

// Trace carries out one verb under ptrace.
func (c *Client) Trace(a Ask) (Cost, error) { return ask[Cost](c, "Trace", a) }

// Fill attaches containers.
func (c *Client) Fill(r Range) (int, error) { return ask[int](c, "Fill", r) }

// Verify looks whether a slot's attachment works.
func (c *Client) Verify(slot int) error {
	_, err := ask[Nothing](c, "Verify", slot)
	return err
}

// Leaks lists what a slot's deleted attachment left.
func (c *Client) Leaks(slot int) ([]string, error) { return ask[[]string](c, "Leaks", slot) }

// Burst carries out one verb many times, several at a time.
func (c *Client) Burst(b Burst) (Bursted, error) { return ask[Bursted](c, "Burst", b) }

// Connect measures the rate of connections through slot 0's published port.
func (c *Client) Connect(n int) (float64, error) { return ask[float64](c, "Connect", n) }
