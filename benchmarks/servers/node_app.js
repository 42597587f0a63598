// node's `ws`.
const { WebSocketServer } = require("ws");
const server = new WebSocketServer({
  port: Number(process.argv[2]),
  perMessageDeflate: process.argv.length > 3,
});
server.on("connection", (socket, request) => {
  const chat = request.url === "/chat";
  socket.on("message", (data, binary) => {
    if (chat) for (const peer of server.clients) peer.send(data, { binary });
    else socket.send(data, { binary });
  });
});
