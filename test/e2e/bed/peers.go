package bed

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Rootfs makes a container's file system: busybox, and peer, which serves where
// nothing else is said.
func (h *Host) Rootfs(name string) string {
	h.t.Helper()
	root := h.Dir + "/" + name
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "run", "tmp", "var"} {
		h.must(os.MkdirAll(root+"/"+d, 0o755))
	}
	h.must(output("cp", "/bin/busybox", h.built.peer, root+"/bin/"))
	for _, applet := range []string{"sh", "sleep", "ip", "ping", "ping6", "cat"} {
		h.must(os.Symlink("busybox", root+"/bin/"+applet))
	}
	h.must(os.WriteFile(root+"/etc/passwd", []byte("root:x:0:0:root:/:/bin/sh\n"), 0o644))
	return root
}

// Asker asks servers, from somewhere.
type Asker struct {
	h     *Host
	enter []string
}

// From is an asker: from the host where nothing is said, or from where the
// words before a program bring it, such as ip netns exec lan.
func (h *Host) From(enter ...string) Asker { return Asker{h, enter} }

// LAN asks from the host's neighbour.
func (h *Host) LAN() Asker { return h.From("ip", "netns", "exec", "lan") }

// TCP returns what the server at the address answers, and waits for it to be up.
func (a Asker) TCP(addr string) string {
	a.h.t.Helper()
	return a.ask("tcp", addr)
}

// UDP is TCP by datagrams.
func (a Asker) UDP(addr string) string {
	a.h.t.Helper()
	return a.ask("udp", addr)
}

func (a Asker) ask(network, addr string) (answer string) {
	a.h.t.Helper()
	a.h.Wait(network+" answer from "+addr+" "+strings.Join(a.enter, " "), func() bool {
		out, err := a.h.Try(append(a.enter[:len(a.enter):len(a.enter)], a.program(), "ask", network, addr)...)
		answer = strings.TrimSpace(out)
		return err == nil
	})
	return answer
}

// program is peer as the asker finds it.
func (a Asker) program() string { return a.h.built.peer }

// Wants fails the story where an answer is not as it must be: it says whose name
// the server has and which address it saw.
func (h *Host) Wants(want, got string) {
	h.t.Helper()
	if want != got {
		h.t.Errorf("answer: want %q, got %q", want, got)
	}
}

// Refuses fails the story where a server answers that must not.
func (a Asker) Refuses(network, addr string) {
	a.h.t.Helper()
	if out, err := a.h.Try(append(a.enter[:len(a.enter):len(a.enter)], a.program(), "ask", network, addr)...); err == nil {
		a.h.t.Errorf("%s answers over %s, and must not: %s", addr, network, out)
	}
}

// Talk is a connection that is kept busy.
type Talk struct {
	a    Asker
	addr string
	cmd  *exec.Cmd
	in   io.Closer
	out  *bufio.Reader
	err  bytes.Buffer
}

// Talk begins a conversation with the server's port 7.
func (a Asker) Talk(addr string) *Talk {
	a.h.t.Helper()
	t := &Talk{a: a, addr: addr, cmd: a.h.Cmd(append(a.enter[:len(a.enter):len(a.enter)], a.program(), "talk", addr)...)}
	in, err := t.cmd.StdinPipe()
	a.h.must(err)
	out, err := t.cmd.StdoutPipe()
	a.h.must(err)
	t.cmd.Stderr, t.in, t.out = &t.err, in, bufio.NewReader(out)
	a.h.must(t.cmd.Start())
	if line, err := t.out.ReadString('\n'); err != nil {
		_ = t.cmd.Wait()
		a.h.t.Fatalf("talk to %s: %s%s", addr, line, &t.err)
	}
	return t
}

// End ends the conversation and fails the story where the connection had broken.
func (t *Talk) End() {
	t.a.h.t.Helper()
	_ = t.in.Close()
	count, _ := t.out.ReadString('\n')
	if err := t.cmd.Wait(); err != nil {
		t.a.h.t.Errorf("the connection to %s broke: %v %s", t.addr, err, &t.err)
	}
	t.a.h.t.Logf("%s: %s", t.addr, strings.TrimSpace(count))
}
