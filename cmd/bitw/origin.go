package main

import (
	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/config"
)

// An origin is what an appliance is made of: a configuration, or a graph of the x-kernel.
type origin struct{ config, graph, iface string }

func (o *origin) flags(cmd *cobra.Command) {
	configFlag(cmd, &o.config, "")
	cmd.Flags().StringVar(&o.graph, "graph", "", "compose bitw by this graph (`FILE`) instead of a configuration")
	cmd.Flags().StringVar(&o.iface, "interface", "", "the interface (`IFACE`) to cut where the graph names none")
}

// path is the file that it begins with.
func (o *origin) path() string {
	if o.graph != "" {
		return o.graph
	}
	return o.config
}

// named is the interface that it is of, as far as what cannot be loaded tells that.
func (o *origin) named() string {
	if o.config != "" {
		g, _ := config.GlanceAt(o.config) // that it cannot be read is told by who loads it
		return g.Interface
	}
	return o.iface
}

// which names the appliance to other verbs.
func (o *origin) which(cfg *config.Config) string {
	if o.graph == "" {
		return "-c " + shellWord(o.config)
	}
	return "--socket " + shellWord(cfg.Control)
}

// plan reads the configuration, or the graph together with what an appliance has to know
// of it.
func (p *program) plan(o origin) (*config.Config, config.Warnings, []appliance.Option, error) {
	switch {
	case o.graph != "" && o.config != "":
		return nil, nil, nil, usagef("-c and --graph each name a configuration: give only one of them")
	case o.iface != "" && o.graph == "":
		return nil, nil, nil, usagef("--interface goes with --graph; a configuration names its own")
	case o.graph == "":
		cfg, warnings, err := p.load(o.config)
		return cfg, warnings, nil, err
	}
	cfg, known, err := appliance.LoadGraph(o.graph, appliance.WithInterface(o.iface))
	if err != nil {
		return nil, nil, nil, err
	}
	return &cfg, nil, []appliance.Option{known}, nil
}
