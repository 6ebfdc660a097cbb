// A module of its own, so that the vectors are no dependency of the product.
module bitw/sa/transform/wycheproof

go 1.26.4

require (
	bitw v0.0.0
	github.com/c2sp/wycheproof v0.0.0-20260902155932-3fa63dd0344a
	golang.org/x/crypto v0.58.0
)

require (
	golang.org/x/exp v0.0.0-20250711185948-6ae5c78190dc // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.15.0 // indirect
	gvisor.dev/gvisor v0.0.0-20260905035102-160fafc42237 // indirect
)

replace bitw => ../../..
