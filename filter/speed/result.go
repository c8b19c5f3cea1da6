package speed

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// Result is one run of one benchmark.
type Result struct {
	// Format is of this file; see ReadResult.
	Format  int       `json:"format"`
	Bench   string    `json:"bench"` // decide, kernel or connect
	At      time.Time `json:"at"`
	Version string    `json:"version"` // of postern
	Machine Machine   `json:"machine"`
	// Settings are what the numbers depend on, by name.
	Settings map[string]string `json:"settings"`
	// Unit is what Row.PerSecond counts, such as "packets".
	Unit string `json:"unit"`
	// Reference names the row that ratios are to; empty for none.
	Reference string `json:"reference,omitempty"`
	Rows      []Row  `json:"rows"`

	begun usage
}

const format = 1

// Row is one thing measured. Zero values were not measured.
type Row struct {
	Name string `json:"name"`
	// Rules, Pods and Workers place the row on a curve.
	Rules     int     `json:"rules,omitempty"`
	Pods      int     `json:"pods,omitempty"`
	Workers   int     `json:"workers,omitempty"`
	PerSecond float64 `json:"perSecond"`
	// NS is processor time for one, in nanoseconds.
	NS float64 `json:"ns,omitempty"`
	// Quantiles of the latency of one, in nanoseconds.
	P50  float64 `json:"p50,omitempty"`
	P99  float64 `json:"p99,omitempty"`
	P999 float64 `json:"p999,omitempty"`
	// Allocs are allocations for one; nil if not counted.
	Allocs *float64 `json:"allocs,omitempty"`
	// Count is how many were measured, Lost how many of them did not come out.
	Count uint64 `json:"count,omitempty"`
	Lost  uint64 `json:"lost,omitempty"`
	// Latency is the distribution that the quantiles are of.
	Latency []Bucket `json:"latency,omitempty"`
}

// key tells which row of another result is the same thing.
func (r *Row) key() string { return fmt.Sprintf("%s|%d|%d|%d", r.Name, r.Rules, r.Pods, r.Workers) }

// label names a row with its place.
func (r *Row) label() string {
	var more []string
	if r.Rules > 0 {
		more = append(more, fmt.Sprintf("%d rules", r.Rules))
	}
	if r.Pods > 0 {
		more = append(more, fmt.Sprintf("%d pods", r.Pods))
	}
	if r.Workers > 1 {
		more = append(more, fmt.Sprintf("%d workers", r.Workers))
	}
	if len(more) == 0 {
		return r.Name
	}
	return r.Name + ", " + strings.Join(more, ", ")
}

// Machine says where it was measured.
type Machine struct {
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	MemoryMB  uint64 `json:"memoryMB"`
	Kernel    string `json:"kernel"`
	Go        string `json:"go"`
	Arch      string `json:"arch"`
	// Others is the part of the processors that other processes, and the host of a
	// virtual machine, used while it was measured; nil where that is not known.
	Others *float64 `json:"others,omitempty"`
}

// ThisMachine describes the machine; what cannot be read is left out.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Arch: runtime.GOARCH}
	m.Processor = field("/proc/cpuinfo", "model name")
	fmt.Sscan(field("/proc/meminfo", "MemTotal"), &m.MemoryMB)
	m.MemoryMB >>= 10
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	return m
}

func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Busy tells whether something else took so much of the machine that rates say little.
func (m Machine) Busy() bool { return m.Others != nil && *m.Others > 0.05 }

// Share words Others; it is empty where that is not known.
func (m Machine) Share() string {
	if m.Others == nil {
		return ""
	}
	return fmt.Sprintf("others used %.0f %% of it", *m.Others*100)
}

func (m Machine) String() string {
	facts := m.Facts()
	if s := m.Share(); s != "" {
		facts = append(facts, s)
	}
	return strings.Join(facts, ", ")
}

// Facts are what stays the same from run to run.
func (m Machine) Facts() (facts []string) {
	add := func(known bool, format string, args ...any) {
		if known {
			facts = append(facts, fmt.Sprintf(format, args...))
		}
	}
	add(m.Processor != "", "%s", m.Processor)
	add(m.Cores > 0, "%d cores", m.Cores)
	add(m.MemoryMB > 0, "%d MB", m.MemoryMB)
	add(m.Kernel != "", "Linux %s", m.Kernel)
	add(m.Go != "", "%s %s", m.Go, m.Arch)
	return facts
}

// NewResult begins a result of now and here.
func NewResult(bench, version, unit string) *Result {
	return &Result{
		Format: format, Bench: bench, At: time.Now().UTC().Truncate(time.Second), Version: version, Machine: ThisMachine(),
		Settings: map[string]string{}, Unit: unit, begun: usageNow(),
	}
}

// Done notes what others used of the machine since NewResult.
func (r *Result) Done() {
	if part, ok := usageNow().others(r.begun, r.Machine.Cores); ok {
		r.Machine.Others = &part
	}
}

// Write writes the result as JSON.
func (r *Result) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(r)
}

// ReadResult reads what Write wrote.
func ReadResult(rd io.Reader) (*Result, error) {
	r := new(Result)
	d := json.NewDecoder(io.LimitReader(rd, 64<<20))
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	if r.Format != format || r.Bench == "" {
		return nil, fmt.Errorf("read result: not a result of postern bench, or of another version (format %d, want %d)", r.Format, format)
	}
	return r, nil
}

// find gives the row of the same key; nil if there is none.
func (r *Result) find(key string) *Row {
	for i := range r.Rows {
		if r.Rows[i].key() == key {
			return &r.Rows[i]
		}
	}
	return nil
}

// Generated is the setting "traffic" of results that are of no capture.
const Generated = "generated"

// SameLoad tells whether another result is of the same benchmark and traffic, so that
// their rows can be compared.
func (r *Result) SameLoad(o *Result) bool {
	return r.Bench == o.Bench && r.Settings["traffic"] == o.Settings["traffic"]
}

// Gain is how many times as fast as its like in an earlier result a row is. Processor
// time tells more than the clock, where both have it. ok is false if there is none.
func (r *Row) Gain(earlier *Result) (gain float64, ok bool) {
	if earlier == nil {
		return 0, false
	}
	old := earlier.find(r.key())
	switch {
	case old == nil || old.PerSecond == 0:
		return 0, false
	case r.NS > 0 && old.NS > 0:
		return old.NS / r.NS, true
	}
	return r.PerSecond / old.PerSecond, true
}

// reference gives the row that the ratio of row is to: the one of the reference's name
// in the same place.
func (r *Result) reference(row *Row) *Row {
	same := *row
	same.Name = r.Reference
	return r.find(same.key())
}

// Table prints the rows; with another result, also how many times as fast as there each
// is. It returns the lowest of these ratios, 0 if nothing could be compared.
func (r *Result) Table(w io.Writer, against *Result) (lowest float64, err error) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := []string{"", r.Unit + "/s"}
	has := func(f func(*Row) bool) bool {
		for i := range r.Rows {
			if f(&r.Rows[i]) {
				return true
			}
		}
		return false
	}
	type column struct {
		head string
		text func(*Row) string
	}
	columns := []column{{"ns each", func(row *Row) string { return short(row.NS) }}}
	if r.Reference != "" {
		columns = append(columns, column{"ratio", func(row *Row) string {
			if ref := r.reference(row); ref != nil && ref.PerSecond > 0 {
				return fmt.Sprintf("%.2f", row.PerSecond/ref.PerSecond)
			}
			return ""
		}})
	}
	for _, q := range []column{
		{"p50", func(row *Row) string { return duration(row.P50) }},
		{"p99", func(row *Row) string { return duration(row.P99) }},
		{"p99.9", func(row *Row) string { return duration(row.P999) }},
	} {
		if has(func(row *Row) bool { return row.P50 > 0 }) {
			columns = append(columns, q)
		}
	}
	if has(func(row *Row) bool { return row.Allocs != nil }) {
		columns = append(columns, column{"allocs", func(row *Row) string {
			if row.Allocs == nil {
				return ""
			}
			return fmt.Sprintf("%.3g", *row.Allocs)
		}})
	}
	if has(func(row *Row) bool { return row.Lost > 0 }) {
		columns = append(columns, column{"lost", func(row *Row) string { return fmt.Sprintf("%d of %d", row.Lost, row.Count) }})
	}
	if against != nil {
		columns = append(columns, column{"x earlier", func(row *Row) string {
			gain, ok := row.Gain(against)
			if !ok {
				return "new"
			}
			if lowest == 0 || gain < lowest {
				lowest = gain
			}
			return fmt.Sprintf("%.2f", gain)
		}})
	}
	if !has(func(row *Row) bool { return row.NS > 0 }) {
		columns = columns[1:]
	}
	for _, c := range columns {
		head = append(head, c.head)
	}
	fmt.Fprintln(t, strings.Join(head, "\t")+"\t")
	for i := range r.Rows {
		row := &r.Rows[i]
		cells := []string{row.label(), short(row.PerSecond)}
		for _, c := range columns {
			cells = append(cells, c.text(row))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t")
	}
	return lowest, t.Flush()
}

// short prints three significant digits with a suffix.
func short(v float64) string {
	switch {
	case v == 0:
		return ""
	case v >= 1e9:
		return fmt.Sprintf("%.3gG", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.3gM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.3gk", v/1e3)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func duration(ns float64) string {
	switch {
	case ns == 0:
		return ""
	case ns >= 1e9:
		return fmt.Sprintf("%.3g s", ns/1e9)
	case ns >= 1e6:
		return fmt.Sprintf("%.3g ms", ns/1e6)
	case ns >= 1e3:
		return fmt.Sprintf("%.3g µs", ns/1e3)
	}
	return fmt.Sprintf("%.0f ns", ns)
}
