package config

import "encoding/json"

// Schema returns a JSON schema (draft 2020-12) of the configuration, for editors. It knows
// every key and the form of its value, but not what Load finds out by looking at several
// together, or at other files. classes are the names of the classes of frames, algorithms
// those of the suites; nil for any.
func Schema(classes, algorithms []string) ([]byte, error) {
	root := object(Keys(classes))
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "bitw"
	root["description"] = "The configuration of one bitw, as bitw up -c and bitw apply read it"
	if algorithms != nil {
		sas := root["properties"].(map[string]any)["security_associations"].(map[string]any)
		sas["items"].(map[string]any)["properties"].(map[string]any)["algorithm"].(map[string]any)["enum"] = algorithms
	}
	text, err := json.MarshalIndent(root, "", "  ")
	return append(text, '\n'), err
}

// object is the schema of a mapping with the keys of a table.
func object(keys []Key) map[string]any {
	properties := make(map[string]any)
	var required []string
	for _, k := range keys {
		v := schemaOf(&k.Value)
		v["description"] = k.text()
		properties[k.Name] = v
		if k.Required {
			required = append(required, k.Name)
		}
	}
	o := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		o["required"] = required
	}
	return o
}

// text is what there is to say of a key in one line.
func (k *Key) text() string {
	t := k.Doc
	if k.Value.Words != "" {
		t += ": " + k.Value.Words
	}
	if k.Default != "" {
		t += " (default: " + k.Default + ")"
	}
	return t
}

func schemaOf(v *Value) map[string]any {
	switch {
	case v.Enum != nil:
		return map[string]any{"enum": v.Enum}
	case v.Bool:
		// yes and no are words in YAML 1.2, and truth in what came before.
		return map[string]any{"enum": []any{true, false, "yes", "no", "true", "false"}}
	case v.Number != nil:
		return map[string]any{"anyOf": []any{
			map[string]any{"type": "integer", "minimum": v.Number[0], "maximum": v.Number[1]},
			map[string]any{"type": "string", "pattern": `^(0x[0-9A-Fa-f_]+|[0-9_]+)$`},
		}}
	case v.Items != nil:
		return map[string]any{"type": []any{"array", "null"}, "items": schemaOf(v.Items)}
	case v.Keys != nil:
		return object(v.Keys)
	case v.Entries != nil:
		return entries(v.Entries)
	case v.Any != nil:
		var list []any
		for i := range v.Any {
			list = append(list, schemaOf(&v.Any[i]))
		}
		return map[string]any{"anyOf": list}
	}
	// What looks like a number or nothing is text to the reader; a pattern holds for strings
	// only.
	return map[string]any{"type": []any{"string", "number"}, "pattern": v.Pattern}
}

func entries(e *Entry) map[string]any {
	value := schemaOf(&e.Value)
	properties := make(map[string]any)
	for _, n := range e.Names {
		properties[n] = value
	}
	return map[string]any{
		"type": []any{"object", "null"}, "properties": properties,
		"patternProperties": map[string]any{e.Pattern: value}, "additionalProperties": false,
	}
}
