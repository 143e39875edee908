package vrf

import (
	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/plugin"
)

type config struct {
	Name  string `json:"vrfname"`
	Table uint32 `json:"table"` // 0: a free one
}

func parse(c *plugin.Call) (config, error) {
	var conf config
	if err := c.Decode(&conf); err != nil {
		return conf, err
	}
	switch {
	case conf.Name == "":
		return conf, cnierr.Config("configuration is expected to have a valid vrf name")
	case !nl.IsName(conf.Name) || conf.Name == c.IfName:
		return conf, cnierr.Config("configuration is expected to have a valid vrf name: %q is none", conf.Name)
	}
	return conf, nil
}

const unchained = "missing prevResult from earlier plugin"
