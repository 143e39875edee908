package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// trips sends a byte and waits for its echo, over and over, and prints the median time.
func trips(addr, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 {
		return fmt.Errorf("count %q", count)
	}
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	took := make([]time.Duration, n)
	buf := []byte{0}
	for i := range took {
		start := time.Now()
		_ = c.SetDeadline(start.Add(patience))
		if _, err := c.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	_, err = fmt.Println(took[n/2].Nanoseconds())
	return err
}
