package bundle

import "regexp"

// redacted stands in the place of what was taken out.
const redacted = "REDACTED"

// secrets are shapes of secrets, wherever they stand. What is kept of a match is its
// first group.
var secrets = []*regexp.Regexp{
	// PEM blocks, also with their line feeds escaped.
	regexp.MustCompile(`()-----BEGIN [A-Z0-9 ]+-----[\s\S]*?(-----END [A-Z0-9 ]+-----|\z)`),
	// JSON web tokens, as service accounts have.
	regexp.MustCompile(`()eyJ[\w-]{6,}\.[\w-]{6,}(\.[\w-]*)?`),
	regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}`),
	regexp.MustCompile(`(?i)(\bauthorization\\?["']?\s*[:=]\s*)[^\s,}]+( [^\s,}]+)?`),
	// A value behind a name such as token, password or client-key-data.
	regexp.MustCompile(`(?i)((?:token|secret|passw(?:or)?d|passphrase|credential|api[_-]?key|private[_-]?key|key-data|certificate-data|authority-data)[\w.-]*\\?["']?\s*[:=]\s*)(\\?"(?:[^"\\]|\\[^"])*\\?"|'[^']*'|[^\s,}"']+)`),
	// Long runs of base64 are keys or certificates more often than anything else; a
	// line of PEM has 64.
	regexp.MustCompile(`()[A-Za-z0-9+/]{60,}=*`),
}

// user is the user in a URL.
var user = regexp.MustCompile(`(://)[^/\s@"]+@`)

// Redact takes out what looks like a secret. It takes out too much rather than too
// little; it is the second line, behind not collecting secrets in the first place.
func Redact(text []byte) []byte {
	for _, s := range secrets {
		text = s.ReplaceAll(text, []byte("${1}"+redacted))
	}
	return user.ReplaceAll(text, []byte("${1}"+redacted+"@"))
}

var quoted = regexp.MustCompile(`\\"(?:[^"\\]|\\[^"])*\\"|\\u003c[^"]*?\\u003e`)

// Unquote takes out what a JSON text quotes within its texts, such as the value in
// "selector \"app == 'x'\" does not parse".
func Unquote(text []byte) []byte { return quoted.ReplaceAll(text, []byte(`\"…\"`)) }
