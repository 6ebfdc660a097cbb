package graphcomp

import (
	"fmt"
	"html"
	"slices"
	"strings"
	"unicode/utf8"
)

// Measures of the picture, in its own units.
const (
	svgChar   = 7.0  // width of a character of the larger font
	svgSmall  = 5.8  // of the smaller one
	svgLine   = 14.0 // height of a line
	svgPad    = 8.0  // within a box
	svgGap    = 18.0 // between boxes
	svgLayer  = 54.0 // between layers
	svgMargin = 24.0
)

// A box is a node in the picture.
type box struct {
	node          *Node
	layer         int
	x, y          float64 // of the upper left corner
	width, height float64
	above         []*box
}

// SVG is the graph as a picture: nodes in layers, each above those that it stands on, the
// tap drivers at the bottom. A line's number is its place in protocols=.
func (g *Graph) SVG() string {
	layers, boxes := g.layers()
	width := place(layers)
	height := svgMargin + 2*svgLine
	for i := len(layers) - 1; i >= 0; i-- {
		tallest := 0.0
		for _, x := range layers[i] {
			x.y = height
			tallest = max(tallest, x.height)
		}
		height += tallest + svgLayer
	}
	height += svgMargin - svgLayer
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" font-family=\"monospace\" font-size=\"11\">\n", width, height, width, height)
	b.WriteString("<style>rect{fill:#fff;stroke:#345;rx:4} .t{fill:#eef6ee} .k{fill:#f4f0e4} .f{fill:#e8f0fb} line{stroke:#89a} .n{font-weight:bold;font-size:11.5px} .s{font-size:9.5px;fill:#456} .i{font-size:8px;fill:#789}</style>\n")
	fmt.Fprintf(&b, "<rect x=\"0\" y=\"0\" width=\"%.0f\" height=\"%.0f\" style=\"fill:#fff;stroke:none\"/>\n", width, height)
	fmt.Fprintf(&b, "<text class=\"n\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", svgMargin, svgMargin, html.EscapeString(g.summary()))
	for _, n := range g.Nodes {
		from := boxes[n]
		for i, l := range n.Lower {
			to := boxes[l]
			x1 := from.port(i)
			place := slices.Index(to.above, from) + 1
			x2 := to.x + to.width*float64(place)/float64(len(to.above)+1)
			fmt.Fprintf(&b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x1, from.y+from.height, x2, to.y)
			if len(n.Lower) > 1 {
				fmt.Fprintf(&b, "<text class=\"i\" x=\"%.1f\" y=\"%.1f\">%d</text>\n", x1+2, from.y+from.height+9, i)
			}
		}
	}
	for _, n := range g.Nodes {
		boxes[n].draw(&b)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// draw writes a box with its text.
func (x *box) draw(b *strings.Builder) {
	class := ""
	switch n := x.node; {
	case isTransform(n.Protocol):
		class = " class=\"t\""
	case n.Protocol == "km" || n.Protocol == "sink":
		class = " class=\"k\""
	case isForwarder(n.Protocol):
		class = " class=\"f\""
	}
	fmt.Fprintf(b, "<g><title>%s</title><rect%s x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", html.EscapeString(x.node.Does()), class, x.x, x.y, x.width, x.height)
	y := x.y + svgPad + 10
	fmt.Fprintf(b, "<text class=\"n\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", x.x+svgPad, y, html.EscapeString(x.node.Name))
	for _, l := range x.node.notes() {
		y += svgLine
		fmt.Fprintf(b, "<text class=\"s\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", x.x+svgPad, y, html.EscapeString(l))
	}
	b.WriteString("</g>\n")
}

// layers puts each node one layer above the highest that it stands on; what nobody stands
// on with nothing below, such as init, goes to the top.
func (g *Graph) layers() ([][]*box, map[*Node]*box) {
	boxes := make(map[*Node]*box)
	var make1 func(n *Node) *box
	make1 = func(n *Node) *box {
		if x := boxes[n]; x != nil {
			return x
		}
		x := &box{node: n}
		boxes[n] = x
		for _, l := range n.Lower {
			below := make1(l)
			x.layer = max(x.layer, below.layer+1)
			if !slices.Contains(below.above, x) {
				below.above = append(below.above, x)
			}
		}
		notes := n.notes()
		x.width = svgChar * float64(utf8.RuneCountInString(n.Name))
		for _, l := range notes {
			x.width = max(x.width, svgSmall*float64(utf8.RuneCountInString(l)))
		}
		x.width += 2 * svgPad
		x.height = svgLine*float64(1+len(notes)) + 2*svgPad - 4
		return x
	}
	top := 0
	for _, n := range g.Nodes {
		top = max(top, make1(n).layer)
	}
	layers := make([][]*box, top+1)
	for _, n := range g.Nodes {
		x := boxes[n]
		switch {
		case len(x.above) == 0 && len(n.Lower) == 0:
			x.layer = top
		case len(n.Lower) == 0 && len(x.above) > 0:
			// Close to who stands on it, so that lines stay short; drivers stay below.
			if n.Protocol == "km" || n.Protocol == "sink" {
				x.layer = top
				for _, a := range x.above {
					x.layer = min(x.layer, a.layer-1)
				}
			}
		}
		layers[x.layer] = append(layers[x.layer], x)
	}
	return layers, boxes
}

// place gives each box its x, layer by layer from the top, each under the middle of those
// that stand on it, and returns the width of the picture.
func place(layers [][]*box) float64 {
	widest := 0.0
	row := func(list []*box) float64 {
		w := 0.0
		for _, x := range list {
			w += x.width + svgGap
		}
		return w - svgGap
	}
	for _, list := range layers {
		widest = max(widest, row(list))
	}
	for i := len(layers) - 1; i >= 0; i-- {
		list := layers[i]
		slices.SortStableFunc(list, func(a, b *box) int {
			switch d := a.middle() - b.middle(); {
			case d < 0:
				return -1
			case d > 0:
				return 1
			}
			return 0
		})
		// What the row does not need is put between its boxes.
		gap := svgGap + (widest-row(list))/float64(len(list)+1)
		at := svgMargin + gap - svgGap
		for _, x := range list {
			x.x = at
			at += x.width + gap
		}
	}
	for _, list := range layers {
		for _, x := range list {
			slices.SortStableFunc(x.above, func(a, b *box) int { return int(a.x - b.x) })
		}
	}
	return widest + 2*svgMargin
}

// middle is the middle of where the lines from the boxes above begin.
func (x *box) middle() float64 {
	sum, n := 0.0, 0
	for _, a := range x.above {
		for i, l := range a.node.Lower {
			if l == x.node {
				sum += a.port(i)
				n++
			}
		}
	}
	if n == 0 {
		return x.x
	}
	return sum / float64(n)
}

// port is the x at which the line to the i-th lower node begins.
func (x *box) port(i int) float64 {
	return x.x + x.width*float64(i+1)/float64(len(x.node.Lower)+1)
}
