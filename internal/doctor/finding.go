package doctor

// Level tells how bad a finding is.
type Level string

const (
	// OK: as it should be.
	OK Level = "ok"
	// Info: good to know.
	Info Level = "info"
	// Warn: enforcement works and something about it is weaker than it looks.
	Warn Level = "warn"
	// Fail: postern cannot enforce here, or not what policy says.
	Fail Level = "fail"
)

// Finding is one thing that was looked at.
type Finding struct {
	// Check names what was looked at; it stays the same from version to version.
	Check string `json:"check"`
	Level Level  `json:"level"`
	// Found is what is so on this host, Means what follows from it, and Do what to do
	// about it; the last two are empty where all is well.
	Found string `json:"found"`
	Means string `json:"means,omitempty"`
	Do    string `json:"do,omitempty"`
}

// Worst is the highest level among findings; OK if there are none.
func Worst(fs []Finding) Level {
	rank := map[Level]int{OK: 0, Info: 1, Warn: 2, Fail: 3}
	worst := OK
	for _, f := range fs {
		if rank[f.Level] > rank[worst] {
			worst = f.Level
		}
	}
	return worst
}
