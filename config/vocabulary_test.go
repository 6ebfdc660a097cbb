package config

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

var testClasses = []string{"arp", "dhcp", "lldp", "ndp"}

// validate is what of JSON schema this package writes.
func validate(schema map[string]any, v any, at string) error {
	if list, ok := schema["anyOf"].([]any); ok {
		var errs []string
		for _, s := range list {
			err := validate(s.(map[string]any), v, at)
			if err == nil {
				return nil
			}
			errs = append(errs, err.Error())
		}
		return fmt.Errorf("%s: %v fits none: %s", at, v, strings.Join(errs, "; "))
	}
	if list, ok := schema["enum"].([]any); ok && !slices.ContainsFunc(list, func(x any) bool { return fmt.Sprintf("%T%v", x, x) == fmt.Sprintf("%T%v", v, v) }) {
		return fmt.Errorf("%s: %v is not among %v", at, v, list)
	}
	is := func(types any, t string) bool {
		list, ok := types.([]any)
		return types == nil || types == t || ok && slices.Contains(list, any(t))
	}
	types := schema["type"]
	switch x := v.(type) {
	case map[string]any:
		if !is(types, "object") {
			return fmt.Errorf("%s: a mapping", at)
		}
		return validateObject(schema, x, at)
	case []any:
		if !is(types, "array") {
			return fmt.Errorf("%s: a list", at)
		}
		for i, item := range x {
			if err := validate(schema["items"].(map[string]any), item, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case string:
		if !is(types, "string") {
			return fmt.Errorf("%s: text", at)
		}
		if p, ok := schema["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(x) {
			return fmt.Errorf("%s: %q does not look like %s", at, x, p)
		}
	case float64:
		if !is(types, "number") && !is(types, "integer") {
			return fmt.Errorf("%s: a number", at)
		}
		if lo, ok := schema["minimum"].(float64); ok && x < lo {
			return fmt.Errorf("%s: below %v", at, lo)
		}
		if hi, ok := schema["maximum"].(float64); ok && x > hi {
			return fmt.Errorf("%s: above %v", at, hi)
		}
	case bool:
		if !is(types, "boolean") {
			return fmt.Errorf("%s: %t", at, x)
		}
	case nil:
		if !is(types, "null") {
			return fmt.Errorf("%s: nothing", at)
		}
	}
	return nil
}

func validateObject(schema, v map[string]any, at string) error {
	properties := schema["properties"].(map[string]any)
	patterns, _ := schema["patternProperties"].(map[string]any)
	for key, value := range v {
		inner, known := properties[key].(map[string]any)
		for p, s := range patterns {
			if !known && regexp.MustCompile(p).MatchString(key) {
				inner, known = s.(map[string]any), true
			}
		}
		if !known {
			return fmt.Errorf("%s: unknown key %q", at, key)
		}
		if err := validate(inner, value, at+"."+key); err != nil {
			return err
		}
	}
	required, _ := schema["required"].([]any)
	for _, r := range required {
		if _, ok := v[r.(string)]; !ok {
			return fmt.Errorf("%s: %v is missing", at, r)
		}
	}
	return nil
}

// asJSON is a YAML text as an editor sees it.
func asJSON(t *testing.T, text string) any {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func schemaForTest(t *testing.T) map[string]any {
	t.Helper()
	text, err := Schema(testClasses, nil)
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// documented is the file of the package's documentation.
func documented(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestR50_SchemaFitsWhatIsRead(t *testing.T) {
	s := schemaForTest(t)
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"example": Example()}
	for i, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		files[fmt.Sprintf("README %d", i)] = m[1]
	}
	for name, text := range files {
		if err := validate(s, asJSON(t, text), name); err != nil {
			t.Error(err)
		}
		if c, _, err := Parse("x.yaml", []byte(strings.ReplaceAll(text, "key_file:", "#")), Options{Classes: testClasses}); err == nil {
			if err := validate(s, asJSON(t, c.Redacted()), name+", redacted"); err != nil {
				t.Error(err)
			}
		}
	}
	if len(files) < 3 {
		t.Errorf("%d files", len(files))
	}
	const head = "interface: eth0\npolicies:\n  - {name: a, action: bypass"
	for _, text := range []string{
		head + "}\nwatchdog: off\nclasses: {ethertype 0x8899: bypass}\nallow_insecure: des\nstate_dir: \"\"\n",
		head + ", local: [192.0.2.1, 192.0.2.32/27, 10.0.0.1-10.0.0.9], protocol: 6, local_ports: [22, 1024-65535], remote_ports: 80}\n",
		head + ", protocol: icmp, icmp: {type: 8, code: 0-3}}\nforbid_bypass: yes\n",
		head + ", protocol: icmp, icmp: opaque}\nmetrics: 127.0.0.1:9469\nacquire: {packets: 10, time: 3s}\n",
	} {
		if err := validate(s, asJSON(t, text), "good"); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
		if _, _, err := Parse("x.yaml", []byte(text), Options{Classes: testClasses}); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
	for name, text := range map[string]string{
		"unknown key":        head + "}\ninterfaces: eth0\n",
		"unknown inner key":  head + ", locals: 192.0.2.1}\n",
		"unknown word":       "interface: eth0\npolicies: [{name: a, action: pass}]\n",
		"missing":            "interface: eth0\npolicies: [{action: bypass}]\n",
		"number too large":   head + "}\nmtu: 100000\n",
		"a list":             head + "}\nmtu: [1500]\n",
		"a mapping":          head + "}\nroutes: {destination: 0.0.0.0/0}\n",
		"unknown class":      head + "}\nclasses: {llpd: bypass}\n",
		"no address":         head + "}\nstatic_neighbors: [{address: host, mac: \"02:00:00:00:00:09\"}]\n",
		"no time":            head + "}\nwatchdog: soon\n",
		"unknown encap":      "interface: eth0\nsecurity_associations: [{name: a, direction: out, protocol: esp, mode: tunnel, spi: 256, source: 1.1.1.1, destination: 1.1.1.2, algorithm: x, encap: {port: 1}}]\n",
		"reserved SPI":       "interface: eth0\nsecurity_associations: [{name: a, direction: out, protocol: esp, mode: tunnel, spi: 255, source: 1.1.1.1, destination: 1.1.1.2, algorithm: x}]\n",
		"unknown populate":   head + ", populate: [ports]}\n",
		"no truth":           head + "}\nmirror_link: maybe\n",
		"unknown lifetime":   "interface: eth0\nsecurity_associations: [{name: a, direction: out, protocol: esp, mode: tunnel, spi: 256, source: 1.1.1.1, destination: 1.1.1.2, algorithm: x, lifetime: {hours: 1}}]\n",
		"unknown ICMP field": head + ", protocol: icmp, icmp: {kind: 8}}\n",
	} {
		if err := validate(s, asJSON(t, text), "bad"); err == nil {
			t.Errorf("%s: the schema takes\n%s", name, text)
		}
		if _, _, err := Parse("x.yaml", []byte(text), Options{Classes: testClasses}); err == nil {
			t.Errorf("%s: the reader takes\n%s", name, text)
		}
	}
}

// Every key of the table is told in the package's documentation and in the manual page.
func TestR50_KeysAreDocumented(t *testing.T) {
	doc, page := documented(t), ManualPage(testClasses)
	var walk func(keys []Key)
	walk = func(keys []Key) {
		for i := range keys {
			k := &keys[i]
			if !regexp.MustCompile(`\b` + k.Name + `\b`).MatchString(doc) {
				t.Errorf("%s is not in the package's documentation", k.Name)
			}
			if !strings.Contains(page, `\fB`+roff(k.Name)+`:\fR`) {
				t.Errorf("%s is not in the manual page", k.Name)
			}
			if k.Doc == "" {
				t.Errorf("%s says nothing", k.Name)
			}
			walk(innerKeys(&k.Value))
		}
	}
	walk(Keys(testClasses))
	if !strings.HasPrefix(page, ".TH ") || strings.Contains(page, "\n\n.SH") || !strings.Contains(page, "lldp") {
		t.Error("the manual page is not in order")
	}
}
