// Package client asks a running appliance by its control socket, as the verbs of bitw
// do, and documents what the socket speaks. It is for programs on the same machine; it
// never touches an interface or a packet.
//
// # The protocol
//
// HTTP/1.1 over a UNIX stream socket (/run/bitw/INTERFACE.sock, or what control: says),
// bodies in JSON, one object each. The first part of a path is the version: in /v1
// fields, requests and values of words are only ever added, so a client passes over what it does
// not know. What does not fit that will be /v2, beside this one.
//
//	GET  /v1/status     200, an appliance.Status
//	GET  /metrics       200, metrics for Prometheus, in its text format or OpenMetrics
//	POST /v1/down       202; the socket closes once the appliance is down
//	POST /v1/tap        an appliance.TapRequest; 200, an appliance.Taps
//	POST /v1/explain    an appliance.Question; 200, an explain.Result. It changes nothing
//	GET  /v1/keys       200, an appliance.KeyList without values
//	POST /v1/keys       an appliance.KeyRequest; 204
//	POST /v1/keys/values 200, an appliance.KeyList; for root and the user that bitw runs as
//	POST /v1/keys/wireshark 200, a stream of lines: keys in the form of Wireshark's table "esp_sa"; likewise
//	POST /v1/capture    an appliance.CaptureRequest; 200, a stream: a file as package pcapng writes it
//	PUT  /v1/neighbors/ADDRESS     {"mac": "02:00:00:00:00:09"}; 200: a static neighbour on the wire
//	DELETE /v1/neighbors/ADDRESS   200: forgets it, learned or static
//	DELETE /v1/neighbors           200, an appliance.Flushed: forgets those that were learned
//	POST /v1/apply      an appliance.ApplyRequest; 200, an appliance.ApplyResult, also where nothing was changed
//	GET  /v1/trace-levels 200, an appliance.TraceLevelList
//	POST /v1/trace-levels an appliance.TraceLevel without tells; 204
//	GET  /v1/events?last=N&since=10m&once=true  a stream of appliance.Event, one a line; see
//	                    appliance.EventsRequest
//	POST /v1/trace      an appliance.TraceRequest; a stream of appliance.TraceLine, one a line, of
//	                    which the last one is the end
//	POST /v1/takeover   101, and the connection speaks as told at appliance.TakeoverVersion
//
// What is no success is an appliance.ControlError, as in
//
//	HTTP/1.1 403 Forbidden
//	Content-Type: application/json
//
//	{"code": "forbidden", "error": "user 1000 may only read here, and this takes …"}
//
// whose code is for programs and whose error is for people. What is no HTTP gets a 400 in plain
// text, and the connection is closed.
//
// # Streams
//
// Some answers go on until the client ends them, or the appliance: chunk by chunk, each sent as it
// comes. A client that wants no more closes the connection, or shuts down its sending
// direction (shutdown(2) with SHUT_WR) and reads on: then it gets what is still to be said, and
// the last chunk, within five seconds. The same comes, within one, when the appliance stops. An answer without its last chunk was
// cut off. Nothing waits for a client that does not read: what it misses is counted and told.
//
// # Who may ask
//
// Root and the user that bitw runs as may do everything. The members of control_group may
// send GET and ask to explain, those of control_admin_group everything but takeover and values of keys; the kernel says who is
// at the other end (SO_PEERCRED, SO_PEERGROUPS), as it was when it connected. Without
// the two keys the socket has mode 0600, with one of them the group's and 0660. With two
// it has 0666, since a file has only one group; who is in neither gets a 403.
//
// # Bounds
//
// A request has at most 16 KiB of head and 5 seconds, also for its answer, and a body of
// as much as it can need: none for most, 4 KiB for tap and trace, 1 KiB for trace-levels,
// 8 KiB for capture, 256 KiB for keys, 512 KiB for explain. To apply takes at most 32 MiB, and a minute. There are at most 128
// connections, and 32 requests at a time of those who may only read.
// Of streams there are at most 16, 8 of them of those who may only read; a request for one
// more is refused.
package client
