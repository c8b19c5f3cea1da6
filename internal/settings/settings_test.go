package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

type values struct {
	name  string
	rate  int
	wide  bool
	files []string
}

func flags(v *values) *pflag.FlagSet {
	f := pflag.NewFlagSet("test", pflag.ContinueOnError)
	f.String(FileFlag, "", "the file")
	f.StringVar(&v.name, "name", "plain", "a name")
	f.IntVar(&v.rate, "flow-log-rate", 7, "a rate")
	f.BoolVar(&v.wide, "wide", false, "a choice")
	f.StringArrayVar(&v.files, "file", nil, "files")
	return f
}

// load parses a command line and loads the rest; @ in it and in environ stands for
// a file of the given text.
func load(t *testing.T, file, args string, environ ...string) (*Set, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "postern.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	var v values
	f := flags(&v)
	if err := f.Parse(strings.Fields(strings.ReplaceAll(args, "@", path))); err != nil {
		t.Fatal(err)
	}
	for i := range environ {
		environ[i] = strings.ReplaceAll(environ[i], "@", path)
	}
	s := New(f)
	return s, s.Load(environ)
}

func TestStrength(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, file, args string
		environ          []string
		want             values
	}{
		{"defaults", "", "", nil, values{"plain", 7, false, nil}},
		{"unread file", "name: file", "", nil, values{"plain", 7, false, nil}},
		{"file", "name: file\nflowLogRate: 3\nwide: true\nfile: [a, 'b,c']", "--config @", nil, values{"file", 3, true, []string{"a", "b,c"}}},
		{"one for a list", "file: a", "--config @", nil, values{"plain", 7, false, []string{"a"}}},
		{"empty list", "file: []", "--config @", nil, values{"plain", 7, false, []string{}}},
		{"environment over file", "name: file\nflowLogRate: 3", "--config @", []string{"POSTERN_NAME=env", "OTHER=1"}, values{"env", 3, false, nil}},
		{"file by environment", "name: file", "", []string{"POSTERN_CONFIG=@"}, values{"file", 7, false, nil}},
		{"flag over all", "name: file\nwide: true", "--config @ --name flag --wide=false", []string{"POSTERN_NAME=env"}, values{"flag", 7, false, nil}},
		{"flag equal to the default", "flowLogRate: 3", "--config @ --flow-log-rate 7", nil, values{"plain", 7, false, nil}},
		{"list by environment", "", "", []string{"POSTERN_FILE=a,b"}, values{"plain", 7, false, []string{"a", "b"}}},
		{"list replaced, not joined", "file: [a]", "--config @ --file c", []string{"POSTERN_FILE=b"}, values{"plain", 7, false, []string{"c"}}},
		{"comments only", "# name: file\n", "--config @", nil, values{"plain", 7, false, nil}},
		{"null", "null", "--config @", nil, values{"plain", 7, false, nil}},
		{"a service of that name", "", "", []string{
			"POSTERN_SERVICE_HOST=10.0.0.1", "POSTERN_SERVICE_PORT=80", "POSTERN_SERVICE_PORT_HTTP=80", "POSTERN_PORT=tcp://10.0.0.1:80",
			"POSTERN_PORT_80_TCP=x", "POSTERN_PORT_80_TCP_ADDR=x", "POSTERN_METRICS_SERVICE_HOST=x", "POSTERN_METRICS_PORT_9_UDP_PROTO=udp",
		}, values{"plain", 7, false, nil}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, err := load(t, tc.file, tc.args, tc.environ...)
			if err != nil {
				t.Fatal(err)
			}
			got := read(s)
			if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(values{})); d != "" {
				t.Error(d)
			}
		})
	}
}

// read gives what the flags of a Set hold.
func read(s *Set) (v values) {
	v.name, _ = s.flags.GetString("name")
	v.rate, _ = s.flags.GetInt("flow-log-rate")
	v.wide, _ = s.flags.GetBool("wide")
	if list, _ := s.flags.GetStringArray("file"); s.flags.Lookup("file").Changed {
		v.files = list
	}
	return v
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, file string
		environ    []string
		says       string
	}{
		{"unknown key", "name: a\nnmae: b", nil, ":2: nmae: no such key"},
		{"flag in the place of a key", "flow-log-rate: 1", nil, ":1: flow-log-rate: no such key; flowLogRate is meant?"},
		{"the file names itself", "config: x", nil, ":1: config: no such key"},
		{"help", "help: true", nil, ":1: help: no such key"},
		{"twice", "name: a\nname: b", nil, ":2: name: stands in line 1 too"},
		{"not a number", "flowLogRate: many", nil, `:1: "many": `},
		{"no value", "name:", nil, "key name: @:1: has no value: leave the key out for the default"},
		{"list", "name: [a]", nil, "key name: @:1: want a single value"},
		{"list of lists", "file: [[a]]", nil, "key file: @:1: want a list of single values"},
		{"map", "name: {a: b}", nil, "want a single value"},
		{"not keys", "- name", nil, ":1: want keys and values"},
		{"not YAML", "name: [", nil, "yaml:"},
		{"unknown variable", "", []string{"POSTERN_NMAE=x"}, "environment variable POSTERN_NMAE: no such setting"},
		{"variable by its key", "", []string{"POSTERN_FLOWLOGRATE=x"}, "; POSTERN_FLOW_LOG_RATE is meant?"},
		{"variable not a number", "", []string{"POSTERN_FLOW_LOG_RATE="}, `environment variable POSTERN_FLOW_LOG_RATE: "": `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, err := load(t, tc.file, "--config @", tc.environ...)
			path := s.flags.Lookup(FileFlag).Value.String()
			if says := strings.ReplaceAll(tc.says, "@", path); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, want %s", err, says)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	t.Parallel()
	var v values
	f := flags(&v)
	if err := f.Parse([]string{"--config", "/nowhere/postern.yaml"}); err != nil {
		t.Fatal(err)
	}
	if err := New(f).Load(nil); err == nil || !strings.Contains(err.Error(), "/nowhere/postern.yaml") {
		t.Errorf("got %v", err)
	}
}

// TestList: what is listed, read back as a file, is the same again.
func TestList(t *testing.T) {
	t.Parallel()
	s, err := load(t, "name: 'a: b'\nfile: [x, y]", "--config @ --flow-log-rate 9", "POSTERN_WIDE=true")
	if err != nil {
		t.Fatal(err)
	}
	var text string
	origins := map[string]Origin{}
	for _, one := range s.List() {
		text += one.Key + ": " + one.YAML + "\n"
		origins[one.Key] = one.Origin
	}
	if d := cmp.Diff(map[string]Origin{"name": File, "file": File, "wide": Environment, "flowLogRate": Flag}, origins); d != "" {
		t.Error(d)
	}
	again, err := load(t, text, "--config @")
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if d := cmp.Diff(read(s), read(again), cmp.AllowUnexported(values{})); d != "" {
		t.Error(d)
	}
}

// TestReference: the file is valid as it is and with every default made explicit,
// and changes nothing.
func TestReference(t *testing.T) {
	t.Parallel()
	var v values
	text := string(New(flags(&v)).Reference())
	explicit := strings.ReplaceAll(text, "\n#", "\n")
	for _, file := range []string{text, strings.Join(strings.FieldsFunc(explicit, func(r rune) bool { return r == '\n' }), "\n")} {
		var lines []string
		for line := range strings.Lines(file) {
			if strings.Contains(line, ": ") || strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		s, err := load(t, strings.Join(lines, ""), "--config @")
		if err != nil {
			t.Fatalf("%v in\n%s", err, file)
		}
		got := read(s)
		if len(got.files) == 0 {
			got.files = nil
		}
		if d := cmp.Diff(values{"plain", 7, false, nil}, got, cmp.AllowUnexported(values{})); d != "" {
			t.Errorf("%s\n%s", d, file)
		}
	}
	for _, key := range []string{"#name: plain\n", "#flowLogRate: 7\n", "#wide: false\n", "#file: []\n"} {
		if !strings.Contains(text, key) {
			t.Errorf("no %q in\n%s", key, text)
		}
	}
}
