package policy

// Problem is something wrong with one object: what admission would refuse it
// for, or why it does not do what it says.
type Problem struct {
	Object Key
	// Origin is where the object was read: a file's path, or empty for the API
	// server.
	Origin string
	// Field is the path from the object's root, such as
	// "spec.ingress[2].source.nets[0]"; empty if the whole object is meant.
	Field string
	// Message tells what is wrong and what to write instead.
	Message string
}

// Error prints "origin: Kind namespace/name: field: message", without the parts
// that are empty.
func (p Problem) Error() string {
	s := p.Object.String() + ": "
	if p.Origin != "" {
		s = p.Origin + ": " + s
	}
	if p.Field != "" {
		s += p.Field + ": "
	}
	return s + p.Message
}
