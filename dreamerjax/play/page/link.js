// The WebSocket: sends requests, receives texts and moments. The server waits until earlier moments are drawn, and this
// side waits for the requested moment before it requests another one, so that nothing queues up on a slow machine.

export class Link {
  // on: callbacks text(content), moment(buffer), lost(reason).
  constructor(on) {
    this.on = on;
    this.tries = 0;
    this.waiting = false;  // for a requested moment
    this.next = null;  // the newest request made while waiting
    this.connect();
  }

  connect() {
    const token = new URLSearchParams(location.search).get("token");
    const parameters = new URLSearchParams({ dream: sessionStorage.getItem("dream") ?? "" });
    if (token) parameters.set("token", token);
    this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws?${parameters}`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = (event) => (typeof event.data === "string" ? this.text(JSON.parse(event.data)) : this.moment(event.data));
    this.socket.onclose = (event) => this.closed(event);
  }

  text(content) {
    this.tries = 0;
    if (content.dream) sessionStorage.setItem("dream", content.dream);
    this.on.text(content);
  }

  moment(buffer) {
    this.waiting = false;
    if (this.next) {
      const message = this.next;
      this.next = null;
      this.requestMoment(message);
    }
    this.on.moment(buffer);
  }

  closed(event) {
    this.waiting = false;
    this.next = null;
    if (event.reason === "opened in another window") return this.on.lost("This dream is open in another window. Reload this page to continue here.");
    if ([4001, 1008, 1011].includes(event.code)) return this.on.lost(event.reason);
    this.tries += 1;
    this.on.lost("The server has stopped or does not answer. This page reconnects when it runs again.");
    setTimeout(() => this.connect(), Math.min(500 * this.tries, 5000));
  }

  request(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  // Requests another moment (slider, repeated key). While waiting for one, only the newest request is kept.
  requestMoment(message) {
    if (this.waiting) this.next = message;
    else this.request(message);
    this.waiting = true;
  }
}
