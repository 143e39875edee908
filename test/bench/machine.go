package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/netcleat/netcleat/test/bench/report"
)

// thisMachine describes the machine.
func thisMachine() report.Machine {
	m := report.Machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, rest, _ := strings.Cut(string(b), "model name\t: ")
		if line, _, _ := strings.Cut(rest, "\n"); line != "" {
			m.CPU = line
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	_, rest, _ := bytes.Cut(kernelConfig(m.Kernel), []byte("\nCONFIG_HZ="))
	hz, _, _ := bytes.Cut(rest, []byte("\n"))
	m.HZ = string(hz)
	return m
}

// kernelConfig returns the kernel's configuration, where it or its package tells.
func kernelConfig(release string) []byte {
	if b, err := os.ReadFile("/boot/config-" + release); err == nil {
		return b
	}
	f, err := os.Open("/proc/config.gz")
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil
	}
	b, _ := io.ReadAll(z)
	return b
}

const (
	quietWindow = 100 * time.Millisecond
	quietShare  = 0.1 // of all cores
)

// quiet waits until the machine does next to nothing, but no longer than the given time. The kernel takes down a thousand
// namespaces long after the last process has left them, and tells nobody when it is done.
func quiet(atMost time.Duration) {
	end := time.Now().Add(atMost)
	for busy, all := cpuTicks(); time.Now().Before(end); {
		time.Sleep(quietWindow) //nolint:forbidigo // the window over which the load is measured
		nowBusy, nowAll := cpuTicks()
		if nowAll > all && float64(nowBusy-busy) <= quietShare*float64(nowAll-all) {
			return
		}
		busy, all = nowBusy, nowAll
	}
}

// cpuTicks returns the time that all cores have been busy, and the time in all, in ticks.
func cpuTicks() (int, int) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	busy, all := 0, 0
	for i, field := range strings.Fields(line)[1:] {
		n, err := strconv.Atoi(field)
		if err != nil || i > 7 { // guest time is in user time already
			break
		}
		all += n
		if i != 3 && i != 4 { // idle, and waiting for a disk
			busy += n
		}
	}
	return busy, all
}
