package plugin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/semver"
)

const indent = "    "

// printResult writes the result in the version that the configuration asked
// for. A nil result is prevResult, passed on as it came.
func printResult(w io.Writer, c *Call, res *current.Result) error {
	b, err := encodeResult(c, res)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return cnierr.With(cnierr.IOFailure, fmt.Errorf("write result: %w", err))
	}
	return nil
}

func encodeResult(c *Call, res *current.Result) ([]byte, error) {
	if res == nil {
		if versionOf(c.Conf.PrevResult) == c.Conf.CNIVersion {
			return indented(c.Conf.PrevResult)
		}
		var err error
		if res, err = c.PrevResult(); err != nil {
			return nil, err
		}
	}
	if res == nil {
		res = &current.Result{}
	}
	res.CNIVersion = newestSpec
	if !semver.AtLeast(c.Conf.CNIVersion, newestSpec) {
		dropNewFields(res)
	}
	if b, ok := encodePlain(res, c.Conf.CNIVersion); ok {
		return indented(b)
	}
	r, err := res.GetAsVersion(c.Conf.CNIVersion)
	if err != nil {
		return nil, cnierr.Explain(err, "the result in the form of cniVersion %s", c.Conf.CNIVersion)
	}
	return json.MarshalIndent(r, "", indent)
}

func indented(b []byte) ([]byte, error) {
	out := bytes.NewBuffer(make([]byte, 0, 2*len(b)))
	err := json.Indent(out, b, "", indent)
	return out.Bytes(), err
}

// dropNewFields takes out of a result what only 1.1.0 has of interfaces; the
// conversion of the types package keeps it.
func dropNewFields(res *current.Result) {
	for _, i := range res.Interfaces {
		i.Mtu, i.SocketPath, i.PciID = 0, "", ""
	}
}

// errorObject is an error as the specification (section 5) wants it.
type errorObject struct {
	CNIVersion string `json:"cniVersion"`
	Code       uint   `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details,omitempty"`
}

// The bounds on what an error says, in bytes: it repeats what it was given, and
// runtimes log it.
const (
	maxMessage = 8 << 10
	maxDetails = 64 << 10
)

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + fmt.Sprintf("… (%d bytes in all)", len(s))
}

func printError(w io.Writer, cniVersion string, err error) {
	if cniVersion == "" {
		cniVersion = newestSpec
	}
	o := errorObject{CNIVersion: cniVersion, Code: cnierr.Code(err), Msg: cut(err.Error(), maxMessage), Details: cut(cnierr.Details(err), maxDetails)}
	b, jerr := json.MarshalIndent(o, "", indent)
	if jerr != nil {
		b = []byte(`{"code": 999, "msg": "error that is no text"}`)
	}
	// Nobody is left to tell that standard output is closed.
	_, _ = w.Write(append(b, '\n'))
}
