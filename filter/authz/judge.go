package authz

import (
	"google.golang.org/protobuf/proto"

	"github.com/postern-project/postern/filter"
)

// Judge decides a question on a ruleset exactly as a Server with the configuration
// would, message and all, without asking one.
func Judge(rs *filter.Ruleset, cfg Config, q *Question) (filter.Outcome, error) {
	s, err := New(&filter.Engine{}, cfg)
	if err != nil {
		return filter.Outcome{}, err
	}
	b, err := proto.Marshal(q.CheckRequest())
	if err != nil {
		return filter.Outcome{}, err
	}
	c := decode(b)
	req, err := s.reader.read(&c)
	if err != nil {
		return filter.Outcome{Reason: filter.InvalidRequest}, nil
	}
	return rs.DecideRequest(&req, cfg.Options), nil
}
