// Package trace is what the parts of the packet path tell of what they do: trace levels
// by the nodes of the x-kernel, and trails, each of which is one packet's way through the
// stations of the bump, with the reason of its drop. Filters choose among trails.
//
// It knows no SA, no policy and no logger: a trail holds names and numbers, and whoever
// wants them reads them. While nobody does, no trail is made; a level that is off costs
// one load.
package trace
