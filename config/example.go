package config

import _ "embed"

//go:embed example.yaml
var example string

// Example is a complete first configuration with a comment at each key, the one in
// the package's documentation. It wants the keys of to-b and from-b in a file.
func Example() string { return example }
