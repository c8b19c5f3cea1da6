package flowlog

import "github.com/postern-project/postern/filter"

// Request is what a record of a request has besides the connection.
type Request struct {
	Asked   filter.Request
	Options filter.RequestOptions
	// Source and Destination are the principals as reported; empty for plain text.
	Source, Destination string
	// Problem says what could not be understood; empty if all was.
	Problem string
}
