package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/miekg/dns"
)

// firstServer is the first server of resolv.conf.
func firstServer() (string, error) {
	b, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if w := strings.Fields(line); len(w) > 1 && w[0] == "nameserver" {
			return w[1], nil
		}
	}
	return "", errors.New("resolv.conf: no server")
}

// lookUp asks a server for a name's IPv4 addresses, as the name is written, and prints
// them in the answer's order, or else the code.
func lookUp(network, name, server string) error {
	c := dns.Client{Net: network, Timeout: patience}
	m, _, err := c.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA), net.JoinHostPort(server, "53"))
	if err != nil {
		return err
	}
	words := []string{}
	for _, r := range m.Answer {
		if a, ok := r.(*dns.A); ok {
			words = append(words, a.A.String())
		}
	}
	if len(words) == 0 {
		words = append(words, dns.RcodeToString[m.Rcode])
	}
	_, err = fmt.Println(strings.Join(words, " "))
	return err
}
