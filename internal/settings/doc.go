// Package settings gives every flag of a command a key in a YAML file and an
// environment variable besides.
//
// The flags are the only list there is: a flag --flow-log-rate has the key
// flowLogRate and the variable POSTERN_FLOW_LOG_RATE, and its usage text is the
// comment in the reference file. So no key can exist in one place and not in the
// others. A flag is stronger than the environment, and the environment is stronger
// than the file. What none of them sets has the flag's default.
//
// Whatever cannot be understood is an error that names where it stands: a misspelt
// key must not leave a host with a default in the place of what was meant.
package settings
