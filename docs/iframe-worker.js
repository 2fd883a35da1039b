/* Pages that are opened as files may not start workers, which the search runs in. There this class takes their place:
   the worker's script runs in a hidden frame, and messages go to and from its window. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inner = this.frame.contentWindow;
      inner.reply = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.document.open();
      inner.document.write(`<script>
        postMessage = (data) => reply(data);
        importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((loaded) => {
          const script = document.createElement("script");
          script.src = url;
          script.onload = loaded;
          document.head.appendChild(script);
        })), Promise.resolve());
      <\/script><script src="${url}"><\/script>`);
      inner.document.close();
      this.ready = new Promise((loaded) => this.frame.addEventListener("load", loaded, { once: true }));
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
